"""The command `sweep`: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]
SCHEMES = ("--scheme", "mono:C=4/8", "--scheme", "tucker2:R1=3,R2=6")
LAYERS = ("--layer", "conv*")


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    x = (0.5 + np.cumsum(rng.standard_normal((20, 3, 12, 12)), axis=3) / 4).astype(np.float32)
    held_out, calibration = tmp_path / "held_out.npz", tmp_path / "calibration.npz"
    np.savez(held_out, image=x[:12], labels=rng.integers(0, 4, 12))
    np.savez(calibration, image=x[12:])
    return {"held_out": held_out, "calibration": calibration}


def test_it_prints_and_writes_tables_and_figures(
    cli: Cli, classifier: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    arguments = (
        "sweep", classifier, *LAYERS, *SCHEMES, "--data", data["held_out"],
        "--calibrate", data["calibration"], "--network", "-o", folder,
    )  # fmt: skip
    outcome = cli(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Table 2: monochromatic" in outcome.out
    assert "loss: points of accuracy that the network loses" in outcome.out
    assert "12 points on 12 held-out samples" in outcome.out
    written = sorted(path.name for path in folder.iterdir())
    figures = [f"{stem}.{kind}" for stem in ("figure1", "tradeoff") for kind in ("png", "svg")]
    results = ["filters", "points.jsonl", "sweep.csv", "sweep.json", "tables.md"]
    assert written == sorted([*figures, *results])
    again = cli(*arguments, "--json")
    report = json.loads(again.out)
    assert report["reused"] == 12
    assert report["output"] == str(folder)
    assert {point["metric"] for point in report["points"]} == {"frobenius", "covariance"}


def test_without_calibration_there_is_the_plain_norm_alone(
    cli: Cli, classifier: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ("sweep", classifier, *LAYERS, *SCHEMES, "--data", data["held_out"])
    report = json.loads(cli(*arguments, "-o", tmp_path / "out", "--json").out)
    assert {point["metric"] for point in report["points"]} == {"frobenius"}
    outcome = cli(*arguments, "--metric", "covariance", "-o", tmp_path / "other")
    assert outcome.code == 2
    assert outcome.err == (
        "error: the metric covariance needs calibration samples; give --calibrate\n"
    )
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scheme", "mono"), "write mono:C="),
        (("--scheme", "mono:C=4", "--layer", "conv7"), "no layer is called 'conv7'"),
        (("--scheme", "mono:C=4", "--metric", "frobenios"), "did you mean 'frobenius'?"),
        (("--scheme", "mono:C=4", "--jobs", "0"), "the number of jobs is 0"),
        ((), "Missing option '--scheme'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    cli: Cli,
    classifier: Path,
    data: dict[str, Path],
    tmp_path: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    folder = tmp_path / "out"
    outcome = cli("sweep", classifier, "--data", data["held_out"], "-o", folder, *options)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert message in line
    assert not folder.exists()


def test_the_report_of_a_killed_sweep_shows_what_was_finished(
    cli: Cli, classifier: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """A kill may cut off the last line anywhere."""
    pytest.importorskip("matplotlib")
    folder = tmp_path / "out"
    cli("sweep", classifier, *LAYERS, *SCHEMES, "--data", data["held_out"], "-o", folder)
    journal, page = folder / "points.jsonl", tmp_path / "page.html"
    first, second, *_ = whole = journal.read_bytes().splitlines(keepends=True)
    assert len(whole) > 2
    layer = json.loads(first)["point"]["scheme"]
    for left, points in (
        (first + second[:1], 1),
        (first + second[: len(second) // 2], 1),
        (first + second[:-1], 2),  # all but its end
        (first[:-1], 1),
        (first, 1),
    ):
        journal.write_bytes(left)
        outcome = cli("report", journal, "-o", page, "--json")
        assert (outcome.code, outcome.err) == (0, "")
        text = page.read_text()
        assert text.rstrip().endswith("</html>")
        assert "an incomplete run" in text
        assert "is not measured" in text
        assert layer in text
        assert (json.loads(second)["point"]["scheme"] in text) == (points == 2)
    page.unlink()
    for left in (b"", first[:1], first[: len(first) // 2]):
        journal.write_bytes(left)
        outcome = cli("report", journal, "-o", page)
        assert outcome.code == 2
        assert outcome.err == (
            f"error: {journal} has no finished point of a sweep; "
            "give what a command printed with --json\n"
        )
        assert not page.exists()
    outcome = cli("report", folder, "-o", page)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
