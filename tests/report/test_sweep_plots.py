"""Figures of a sweep: which are drawn, from what, and that they do not change."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_lowrank.pipelines.sweeping import PointResult, SweepReport
from onnx_lowrank.report import sweep_plots

pytest.importorskip("matplotlib")

POINT = PointResult(
    layer="conv1",
    scheme="mono:C=2",
    metric="frobenius",
    calibration_images=None,
    macs=1000,
    macs_new=250,
    params=90,
    params_new=30,
    fit_error=0.2,
    held_out_error=0.1,
    seconds=1.0,
)
POINTS = (
    POINT,
    replace(POINT, scheme="mono:C=4", held_out_error=0.2, macs_new=300),
    replace(POINT, scheme="mono:C=4", held_out_error=0.05, macs_new=300, metric="covariance"),
    replace(POINT, scheme="tucker2:R1=2,R2=3", held_out_error=0.01),
    replace(POINT, layer="fc", scheme="svd:R=3", macs=None, macs_new=None),
)


def colours(path: Path, seed: int, outputs: int = 10) -> Path:
    rng = np.random.default_rng(seed)
    original = rng.standard_normal((outputs, 3, 5, 5)).astype(np.float32)
    np.savez(path, original=original, fitted=0.5 * original)
    return path


def report(**changes: Any) -> SweepReport:
    whole = SweepReport(
        model="net.onnx", settings={}, held_out_images=17, points=POINTS, skipped=()
    )
    return replace(whole, **changes)


def test_without_colours_there_is_the_tradeoff_alone(tmp_path: Path) -> None:
    assert sweep_plots.draw(report(), tmp_path) == ("tradeoff.png", "tradeoff.svg")
    assert (tmp_path / "tradeoff.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    svg = (tmp_path / "tradeoff.svg").read_text()
    for text in ("mono, frobenius", "mono, covariance", "tucker2, frobenius", ">fc<", ">conv1<"):
        assert text in svg
    assert "points of accuracy" not in svg


def test_the_networks_loss_has_its_own_panels(tmp_path: Path) -> None:
    points = tuple(replace(p, samples=17, drop_points=1.0) for p in POINTS)
    sweep_plots.draw(report(points=points), tmp_path)
    assert "points of accuracy" in (tmp_path / "tradeoff.svg").read_text()


def test_the_filters_are_of_the_best_fit_with_the_most_colours(tmp_path: Path) -> None:
    filters = {p: colours(tmp_path / f"{i}.npz", i) for i, p in enumerate(POINTS[:4])}
    found = sweep_plots.colour_point(report(filters=filters))
    assert found is not None
    point, before, after = found
    assert point == POINTS[2]
    np.testing.assert_array_equal(after, 0.5 * before)
    assert before.shape == (10, 3, 5, 5)
    tucker_alone = report(filters={POINTS[3]: filters[POINTS[3]]})
    assert sweep_plots.colour_point(tucker_alone) is None


@pytest.mark.parametrize("outputs", [1, 7, 96])
def test_figure_1_shows_cloud_and_filters(tmp_path: Path, outputs: int) -> None:
    whole = report(filters={POINT: colours(tmp_path / "a.npz", 0, outputs)})
    names = ("figure1.png", "figure1.svg", "tradeoff.png", "tradeoff.svg")
    assert sweep_plots.draw(whole, tmp_path) == names
    svg = (tmp_path / "figure1.svg").read_text()
    # Two pictures for each filter shown: at most 18 of them.
    assert svg.count("<image") == 2 * min(outputs, 18)
    assert "mono:C=2, frobenius" in svg


def test_the_same_sweep_gives_the_same_files(tmp_path: Path) -> None:
    filters = {POINT: colours(tmp_path / "a.npz", 0)}
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        names = sweep_plots.draw(report(filters=filters), folder)
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_without_matplotlib_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert sweep_plots.draw(report(), tmp_path) == ()
    assert list(tmp_path.iterdir()) == []
