"""What is not JSON of the due form is refused before it is used, in one sentence with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnx_lowrank import json_input
from onnx_lowrank.errors import PlanError
from onnx_lowrank.json_input import JsonError, check_json, check_partial, parse_json, read_json

PLAN = {"version": 1, "layers": [{"name": "conv1", "scheme": "mono:C=6"}]}


def test_json_is_read_as_it_is_with_and_without_a_mark() -> None:
    data = {"a": [1, -2.5e3, None, True, "é\ud800", {"": []}]}
    text = json.dumps(data)
    assert parse_json(text) == parse_json(text.encode()) == data
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "it is not JSON: .* line 1 column 2"),
        (b"\0", "it is not JSON"),
        (b'{"a": "\0"}', "it is not JSON"),
        ('{"a": 1}'.encode("utf-16"), "it is not UTF-8 at byte 0"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 64 deep"),
        (b'{"a":' * 100_000, "nested more than 64 deep"),
        (b'"\\"' + b"[" * 100 + b'", ' + b"[" * 65, "nested more than 64 deep"),
        (b"1" * 100_000, "has 100,000 characters"),
        (b"0." + b"1" * 100_000, "has 100,002 characters"),
        (b"[1e999]", "beyond the range"),
        (b"[-1e999]", "beyond the range"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"a": {"key": 1, "key": 2}}', "the key 'key' is there twice"),
        (b"[1] [2]", "it is not JSON: Extra data"),
    ],
)
def test_what_is_no_json_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(JsonError, match=reason):
        parse_json(content)


def test_brackets_in_texts_nest_nothing() -> None:
    data = ["[" * 1000, '\\"' + "{" * 1000, {"]" * 1000: "\\"}]
    assert parse_json(json.dumps(data)) == data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "its version is 2, not 1"),
        ({"version": True}, "version: 1 was expected"),
        ({"layers": {}}, "layers: .* is not of type 'array'"),
        ({"layers": [*PLAN["layers"], {"name": 1, "scheme": None}]}, r"layers\[1\]\.name: 1 is"),
        ({"layers": [{"name": "a"}]}, r"layers\[0\]: 'scheme' is a required property"),
        ({"layers": [{"name": "a", "sheme": "x", "scheme": "y"}]}, "'sheme' was unexpected"),
    ],
)
def test_the_place_of_a_misfit_is_named(change: dict[str, Any], reason: str) -> None:
    check_json(PLAN, "plan")
    with pytest.raises(JsonError, match=reason):
        check_json({**PLAN, **change}, "plan")


def test_another_kind_is_named() -> None:
    with pytest.raises(JsonError, match="its kind is 'search', not 'latency'"):
        check_json({"kind": "search", "version": 1}, "latency")
    with pytest.raises(JsonError, match="its kind is missing, not 'latency'"):
        check_json({}, "latency")


def test_a_partial_document_may_lack_fields_and_have_more_but_not_be_wrong() -> None:
    report = {"kind": "report", "version": 1, "output": None, "later": 1}
    check_partial(report, "report")
    with pytest.raises(JsonError, match="bytes: 'x' is not of type 'integer'"):
        check_partial({**report, "bytes": "x"}, "report")
    with pytest.raises(JsonError, match="minimum"):
        check_partial({**report, "bytes": -1}, "report")


def test_a_file_is_read_or_the_reason_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> Any:
        return read_json(path, "plan", what="the plan", remedy="write one", error=PlanError)

    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    assert read(path) == PLAN
    for other, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        (tmp_path / ("x" * 300), "name too long"),
        (tmp_path / "a\0b", "null byte"),
        (Path("/dev/null"), "it is empty"),
    ):
        with pytest.raises(PlanError, match=rf"cannot read the plan [^;]*{reason}.*; write one"):
            read(other)
    monkeypatch.setattr(json_input, "MAX_BYTES", 20)
    for large in (path, Path("/dev/zero")):
        with pytest.raises(PlanError, match="it is larger than"):
            read(large)
