"""Mutants of every document that a command reads: exit 0, 1 or 2, one line for 2, no traceback."""

from __future__ import annotations

import copy
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from counts import Record
from onnx import helper, numpy_helper

from onnx_lowrank.cli import main
from onnx_lowrank.documents import VERSIONS
from onnx_lowrank.json_input import check_json, load_schema, resolve
from onnx_lowrank.report.html.runs import KINDS

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytestmark = pytest.mark.filterwarnings("default")

SCALE = float(os.environ.get("ONNX_LOWRANK_TRUST_SCALE", "1"))
PLAN = {
    "version": 1,
    "layers": [
        {"name": "conv1", "scheme": "mono:C=2", "reason": None},
        {"name": "c*", "scheme": "channel:macs=0.5", "reason": None},
        {"name": "fc", "scheme": None, "reason": "small"},
    ],
}


def example(schema: dict[str, Any], home: str, depth: int = 0) -> Any:
    """Return data that fit a schema, with one entry in each list and mapping."""
    schema, home = resolve(schema, home)
    if "anyOf" in schema:
        options = [resolve(option, home) for option in schema["anyOf"]]
        schema, home = max(options, key=lambda option: len(option[0].get("properties", ())))
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        parts = schema.get("properties", {})
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            parts = {**parts, "x": more}
        return {name: example(part, home, depth + 1) for name, part in parts.items()}
    if kind == "array":
        first = [example(part, home) for part in schema.get("prefixItems", ())]
        if "items" in schema:
            count = schema.get("minItems", 1) - len(first)
            first += [example(schema["items"], home) for _ in range(count)]
        return first
    return {
        "string": "conv1",
        "integer": max(1, schema.get("minimum", 1)),
        "number": 0.5 + schema.get("minimum", 0) / 2,
        "boolean": True,
        "null": None,
    }[kind]


def documents() -> dict[str, Any]:
    """Return a whole document of every kind that is read."""
    found = {kind: example(load_schema(kind), f"{kind}.schema.json") for kind in KINDS}
    for kind, each in found.items():
        check_json(each, kind)
    latency = example(load_schema("latency"), "latency.schema.json")
    latency["whole"] = [0.1, 1, 1, 1]
    check_json(latency, "latency")
    return {**found, "latency": latency, "plan": PLAN}


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to everything in a document."""
    if path:
        yield path
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, each in pairs:
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))
        else:
            yield (*path, key)


class Raw(str):
    """JSON text that stands for a value."""


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.0, -0.5, 1e308, 5e-324, 10**30, 2**63, "", "x", [], {}),
    *([None], [[]], {"a": None}, "conv1=mono:C=2", "mono:C=" + "9" * 5000, "\x1b[31m\u202e\n"),
    *("a" * 300_000, "[bold]", "\ud800", "$\\frac$", "<script>", "%s{}", [0] * 1000),
    *(Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000)),
    *(Raw("-" + "1" * 100_000), Raw("[" * 100_000 + "]" * 100_000), Raw('{"a":' * 100_000)),
    *(Raw('{"a": 1, "a": 2}'), Raw("'x'"), Raw("0x10"), Raw("\x00"), Raw('"\\ud800"')),
)


def mutate(document: Any, rng: random.Random) -> bytes:
    """Return a document with one to three faults."""
    data = copy.deepcopy(document)
    raw: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *way, last = rng.choice(list(places(data)) or [("version",)])
        holder = data
        for step in way:
            holder = holder[step]
        action = rng.choice(("value", "value", "drop", "null", "empty", "copy", "name"))
        if action == "drop":
            del holder[last]
        elif action in ("null", "empty"):
            holder[last] = type(holder[last])() if action == "empty" and holder[last] else None
        elif action == "copy" and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[last]) for _ in range(rng.choice((1, 50))))
        elif action == "name" and isinstance(holder, dict):
            holder[rng.choice(("", "more", "a" * 100_000, "\x1b", "kind"))] = holder.pop(last)
        else:
            value = rng.choice(VALUES)
            if isinstance(value, Raw):
                mark = f"@{len(raw)}@"
                raw[json.dumps(mark)] = value
                value = mark
            holder[last] = value
        if not isinstance(data, dict) or not data:
            break
    text = json.dumps(data)
    for mark, value in raw.items():
        text = text.replace(mark, value)
    content = text.encode()
    fault = rng.random()
    if fault < 0.04:
        return content[: rng.randrange(len(content))]
    if fault < 0.08:
        place = rng.randrange(len(content))
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    if fault < 0.1:
        return rng.choice((b"\xef\xbb\xbf" + content, text.encode("utf-16"), content + content))
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a small network and samples."""
    place = tmp_path_factory.mktemp("json")
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 4)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "conv1"),
        helper.make_node("Conv", ["a", "w2"], ["b"], "conv2"),
        helper.make_node("GlobalAveragePool", ["b"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [
            numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
            for n, s in shapes.items()
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, place / "net.onnx")
    np.savez(place / "x.npz", x=rng.standard_normal((8, 3, 8, 8)).astype(np.float32))
    return place


@pytest.fixture
def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, bytes], int]:
    """Give a function that lets the command that reads a kind read some content."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(folder / "cache"))
    command = {
        "plan": ("cost", "net.onnx", "--plan", "in.json"),
        "latency": (
            *("compress", "net.onnx", "-o", "new.onnx", "--data", "x.npz", "--min-sqnr", "5"),
            *("--calibrate", "x.npz", "--latency", "in.json"),
        ),
    }

    def call(kind: str, content: bytes) -> int:
        Path("in.json").write_bytes(content)
        Path("page.html").unlink(missing_ok=True)
        line = command.get(kind, ("report", "in.json", "-o", "page.html"))
        monkeypatch.setattr(sys, "argv", ["onnx-lowrank", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        code, (out, err) = ended.value.code, capsys.readouterr()
        assert code in (0, 1, 2)
        assert (out + err).replace("\n", "").isprintable()
        if code == 2:
            assert out == ""
            assert err.startswith("error: ")
            assert len(err.splitlines()) == 1, err
            assert len(err) < 5000
            assert not Path("page.html").exists()
        elif kind in KINDS:
            page = Path("page.html").read_text(encoding="utf-8")
            assert "<script" not in page
            assert page.replace("\n", "").isprintable()
        return int(code)

    return call


def test_complete_documents_are_read(run: Callable[[str, bytes], int]) -> None:
    found = documents()
    assert set(found) == {*KINDS, "latency", "plan"}
    assert set(VERSIONS) == {*KINDS, "latency", "report", "doctor"}
    for kind, each in found.items():
        # The latencies are of another model, which is said before anything is searched.
        assert run(kind, json.dumps(each).encode()) == (2 if kind == "latency" else 0), kind


def test_mutants_end_in_a_result_or_in_one_line(
    trust_record: Record, run: Callable[[str, bytes], int]
) -> None:
    # A report draws figures; plans and latencies are quick.
    counts = {"plan": 150, "latency": 130, **dict.fromkeys(KINDS, 22)}
    tried: Counter[str] = Counter()
    ended: Counter[int] = Counter()
    found = documents()
    for kind, count in counts.items():
        for seed in range(int(SCALE * count)):
            content = mutate(found[kind], random.Random(f"{kind} {seed}"))
            try:
                ended[run(kind, content)] += 1
            except BaseException as error:
                raise AssertionError(f"{kind}, mutant {seed}: {content[:2000]!r}") from error
            tried[kind] += 1
    codes = {f"exit code {code}": count for code, count in sorted(ended.items())}
    trust_record("mutants of JSON", {"tried": tried.total(), **codes})
    assert tried.total() >= int(SCALE * 500)
    assert set(ended) == {0, 2}
