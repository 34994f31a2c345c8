"""Fits of many layers: one that fails is left out, and a layer of which all fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import low

from onnx_lowrank.cache import Cache
from onnx_lowrank.errors import CacheWarning
from onnx_lowrank.fitting.arrays import to_arrays
from onnx_lowrank.fitting.parallel import LayerTask, fit_all
from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.channel import Channel
from onnx_lowrank.schemes.one_block import Tucker2

SCHEMES: tuple[Scheme, ...] = (Channel(2), Tucker2(2, 3), Channel(3))


def task(name: str, weight: Any) -> LayerTask:
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
    return LayerTask(name, weight.astype(np.float64), None, 1, {name: statistics}, name, SCHEMES)


def test_a_fit_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    broken = low(rng, 6, 4, 3, 3)
    broken[0, 0, 0, 0] = np.nan

    def failing(self: Tucker2, problem: Any, rng: Any) -> Any:
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(Tucker2, "fit_in_covariance", failing)
    tasks = [task("good", low(rng, 6, 4, 3, 3)), task("broken", broken)]
    steps: list[int] = []
    fits, failed = fit_all(
        tasks,
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


def test_a_kept_fit_of_other_shapes_is_made_again_and_said_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = [task(name, low(rng, 6, 4, 3, 3)) for name in ("one", "two")]
    options: Any = {"seed": 0, "jobs": 1, "progress": lambda *_: None}
    first, _ = fit_all(tasks, Cache(tmp_path), **options)
    narrow = task("narrow", low(rng, 6, 3, 3, 3))
    others, _ = fit_all([narrow], Cache(tmp_path / "others"), **options)
    store = Cache(tmp_path)
    for each in tasks:
        keys = each.keys(0)
        store.put_arrays(keys[0], to_arrays(first[each.name][2]))  # of another rank
        store.put_arrays(keys[1], to_arrays(others["narrow"][1]))  # of another layer
    with pytest.warns(CacheWarning, match="damaged or of another version") as said:
        again, failed = fit_all(tasks, store, **options)
    assert (len(said), failed) == (1, {})
    for name, fits in first.items():
        for fit, new in zip(fits, again[name], strict=True):
            assert np.array_equal(fit.factors.reconstruct(), new.factors.reconstruct())
    fit_all(tasks, Cache(tmp_path), **options)  # and kept: a warning would be an error
