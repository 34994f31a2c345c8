"""A fit comes back from its arrays for its own layer and ranks, and for no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.fitting.arrays import from_arrays, to_arrays
from onnx_lowrank.fitting.layer import FitProblem, fit_layer
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes import SCHEMES, Rank, Scheme

SHAPES = [((8, 6, 3, 3), 1), ((6, 8, 3, 5), 1), ((8, 6, 5), 1), ((6, 4, 3, 2, 2), 1)]
SHAPES += [((8, 6), 1), ((8, 6, 1, 1), 1), ((8, 2, 3, 3), 2), ((12, 4, 1, 1), 2)]


def conv_of(shape: tuple[int, ...], group: int) -> ConvSpec:
    outputs, inputs, *kernel = shape
    ones = (1,) * len(kernel)
    return ConvSpec(
        in_channels=inputs * group,
        out_channels=outputs,
        kernel=tuple(kernel),
        strides=ones,
        dilations=ones,
        pads=(0,) * 2 * len(kernel),
        group=group,
    )


@pytest.mark.parametrize("cls", SCHEMES, ids=lambda cls: cls.name)
def test_a_fit_comes_back_for_its_own_layer_and_ranks_only(cls: type[Scheme]) -> None:
    """Of every scheme and every layer that it takes; those of others are refused."""
    rng = np.random.default_rng(0)
    tried: list[tuple[ConvSpec, Scheme, Any]] = []
    for shape, group in SHAPES:
        weight, conv = rng.standard_normal(shape), conv_of(shape, group)
        if cls.refusal(conv) is not None:
            continue
        for percent in (50.0, 100.0):
            ranks = {name: Rank(percent, percent=True) for name in cls.rank_names()}
            scheme = cls.resolve(ranks, conv)
            to_fit = FitProblem(weight, Frobenius(), lambda fitted: None, group)
            tried.append((conv, scheme, to_arrays(fit_layer("layer", scheme, to_fit, seed=0))))
    assert len(tried) >= 4
    for index, (conv, scheme, arrays) in enumerate(tried):
        fit = from_arrays("layer", scheme, conv, arrays)
        assert fit.factors.reconstruct().shape == conv.weight_shape
        other, ranks, _ = tried[index - 1]
        if (ranks, other) != (scheme, conv):
            with pytest.raises(ValueError, match="no fit of"):
                from_arrays("layer", ranks, other, arrays)
        with pytest.raises(ValueError, match="bias of another layer"):
            from_arrays("layer", scheme, conv, {**arrays, "bias": np.zeros(3)})
        for name, value in arrays.items():
            if value.dtype.kind == "i":
                spoilt = {**arrays, name: np.full_like(value, 99)}
                with pytest.raises(ValueError, match="no fit of"):
                    from_arrays("layer", scheme, conv, spoilt)
