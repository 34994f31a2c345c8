"""Fits of a search: one that fails is left out, and a layer of which all fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import low

from onnx_lowrank.cache import Cache
from onnx_lowrank.errors import CacheWarning
from onnx_lowrank.fitting.layer import FitProblem, fit_layer
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics
from onnx_lowrank.schemes import SCHEMES as ALL
from onnx_lowrank.schemes import Rank, Scheme
from onnx_lowrank.schemes.channel import Channel
from onnx_lowrank.schemes.one_block import Tucker2
from onnx_lowrank.search.fits import LayerProblem, fit_all, from_arrays, to_arrays

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


SHAPES = [((8, 6, 3, 3), 1), ((6, 8, 3, 5), 1), ((8, 6, 5), 1), ((6, 4, 3, 2, 2), 1)]
SHAPES += [((8, 6), 1), ((8, 6, 1, 1), 1), ((8, 2, 3, 3), 2), ((12, 4, 1, 1), 2)]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
def test_a_fit_comes_back_for_its_own_layer_and_ranks_only(cls: type[Scheme]) -> None:
    """Of every scheme and every layer that it takes; those of others are refused."""
    rng = np.random.default_rng(0)
    tried: list[tuple[LayerProblem, Scheme, Any]] = []
    for shape, group in SHAPES:
        given = replace(problem("layer", rng.standard_normal(shape)), group=group)
        if cls.refusal(given.conv) is not None:
            continue
        for percent in (50.0, 100.0):
            ranks = {name: Rank(percent, percent=True) for name in cls.rank_names()}
            scheme = cls.resolve(ranks, given.conv)
            to_fit = FitProblem(given.weight, Frobenius(), lambda weight: None, group)
            tried.append((given, scheme, to_arrays(fit_layer("layer", scheme, to_fit, seed=0))))
    assert len(tried) >= 4
    for index, (given, scheme, arrays) in enumerate(tried):
        fit = from_arrays("layer", scheme, given.conv, arrays)
        assert fit.factors.reconstruct().shape == given.weight.shape
        other, ranks, _ = tried[index - 1]
        if (ranks, other.conv) != (scheme, given.conv):
            with pytest.raises(ValueError, match="no fit of"):
                from_arrays("layer", ranks, other.conv, arrays)
        with pytest.raises(ValueError, match="bias of another layer"):
            from_arrays("layer", scheme, given.conv, {**arrays, "bias": np.zeros(3)})
        for name, value in arrays.items():
            if value.dtype.kind == "i":
                spoilt = {**arrays, name: np.full_like(value, 99)}
                with pytest.raises(ValueError, match="no fit of"):
                    from_arrays("layer", scheme, given.conv, spoilt)


def test_a_kept_fit_of_other_shapes_is_made_again_and_said_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    problems = [problem(name, low(rng, 6, 4, 3, 3)) for name in ("one", "two")]
    options: Any = {"seed": 0, "jobs": 1, "progress": lambda *_: None}
    whole, _ = fit_all(problems, Cache(tmp_path), **options)
    narrow = problem("narrow", low(rng, 6, 3, 3, 3))
    others, _ = fit_all([narrow], Cache(tmp_path / "others"), **options)
    store = Cache(tmp_path)
    for each in problems:
        keys = each.keys(0)
        store.put_arrays(keys[0], to_arrays(whole[each.name][2]))  # of another rank
        store.put_arrays(keys[1], to_arrays(others["narrow"][1]))  # of another layer
    with pytest.warns(CacheWarning, match="damaged or of another version") as said:
        again, failed = fit_all(problems, store, **options)
    assert (len(said), failed) == (1, {})
    for name, fits in whole.items():
        for fit, new in zip(fits, again[name], strict=True):
            assert np.array_equal(fit.factors.reconstruct(), new.factors.reconstruct())
    fit_all(problems, Cache(tmp_path), **options)  # and kept: a warning would be an error
