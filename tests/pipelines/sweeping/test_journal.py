"""Finished points survive whatever happens to the process that writes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_lowrank.errors import CacheWarning, OutputError
from onnx_lowrank.pipelines.sweeping.journal import Journal
from onnx_lowrank.pipelines.sweeping.result import PointResult

POINT = PointResult(
    layer="conv1",
    scheme="mono:C=4",
    metric="covariance",
    calibration_images=3,
    macs=1000,
    macs_new=250,
    params=100,
    params_new=30,
    fit_error=0.25,
    held_out_error=0.5,
    seconds=1.5,
    sqnr_db=12.5,
)
OTHER = replace(POINT, metric="frobenius", calibration_images=None, sqnr_db=None)


def test_what_is_added_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    journal = Journal(path)
    journal.add("a", POINT)
    assert "a" in journal
    assert "b" not in journal
    Journal(path).add("b", OTHER)
    after = Journal(path)
    assert after["a"] == POINT
    assert after["b"] == OTHER
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_cut_off_is_missing_and_spoils_no_other(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "points.jsonl"
    Journal(path).add("a", POINT)
    whole = path.read_bytes()
    Journal(path).add("b", OTHER)
    torn = path.read_bytes()[len(whole) :].rstrip(b"\n")
    path.write_bytes(whole + torn[:kept])
    journal = Journal(path)
    assert "a" in journal
    assert "b" not in journal
    journal.add("c", OTHER)
    after = Journal(path)
    assert after["a"] == POINT
    assert after["c"] == OTHER
    assert "b" not in after


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        '{"version": 1, "key": "z"}',
        '{"version": 1, "key": "z", "point": {"layer": "conv1"}}',
        '{"version": 1, "key": [], "point": ' + json.dumps(POINT.to_dict()) + "}",
        '{"version": 2, "key": "z", "point": ' + json.dumps(POINT.to_dict()) + "}",
        '{"version": 1, "key": "z", "point": ' + json.dumps(POINT.to_dict()) + "}",
        "[" * 100_000,
        "\x00\x00",
    ],
)
def test_foreign_lines_are_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "points.jsonl"
    path.write_text(line + "\n")

    def read() -> Journal:
        if not line.endswith("}"):
            return Journal(path)
        with pytest.warns(CacheWarning, match="are damaged or of another version"):
            return Journal(path)

    journal = read()
    journal.add("a", POINT)
    assert "z" not in journal
    assert read()["a"] == POINT


def test_a_figure_that_was_changed_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    Journal(path).add("a", POINT)
    Journal(path).add("b", OTHER)
    path.write_text(path.read_text().replace('"fit_error": 0.25', '"fit_error": 0.35', 1))
    with pytest.warns(CacheWarning):
        journal = Journal(path)
    assert "a" not in journal
    assert journal["b"] == OTHER


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot read .*; choose another folder"):
        Journal(tmp_path)
