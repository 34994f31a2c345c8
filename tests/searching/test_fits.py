"""Fits of a search: one that fails is left out, and a layer of which all fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import low

from onnx_lowrank.cache import Cache
from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.channel import Channel
from onnx_lowrank.schemes.one_block import Tucker2
from onnx_lowrank.searching.fits import LayerProblem, fit_all

SCHEMES: tuple[Scheme, ...] = (Channel(2), Tucker2(2, 3), Channel(3))


def problem(name: str, weight: Any) -> LayerProblem:
    length = weight[0].size
    moments = DenseMoments(mean=np.zeros((1, length)), second=np.eye(length)[None])
    statistics = LayerStatistics(
        images=9,
        samples=90,
        intensity=0.1,
        centred_intensity=0.1,
        mean_intensity=0.1,
        moments=moments,
    )
    return LayerProblem(name, weight.astype(np.float64), None, 1, {name: statistics}, name, SCHEMES)


def test_a_fit_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    broken = low(rng, 6, 4, 3, 3)
    broken[0, 0, 0, 0] = np.nan

    def failing(self: Tucker2, problem: Any, rng: Any) -> Any:
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(Tucker2, "fit_in_covariance", failing)
    problems = [problem("good", low(rng, 6, 4, 3, 3)), problem("broken", broken)]
    steps: list[int] = []
    fits, failed = fit_all(
        problems,
        Cache(tmp_path),
        seed=0,
        jobs=1,
        progress=lambda step, done, total: steps.append(done),
    )
    assert {name: [fit.scheme for fit in each] for name, each in fits.items()} == {
        "good": [Channel(2), Channel(3)]
    }
    assert failed.keys() == {"broken"}
    assert failed["broken"].startswith("its weight has NaN or Inf")
    assert steps == [0, 1, 2]
