"""Whole models of some fits."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_lowrank.passes.absorb_permutations import AbsorbPermutationsPass
from onnx_lowrank.passes.approximate_conv import ApproximateConvPass
from onnx_lowrank.passes.base import PassManager
from onnx_lowrank.planning.fit import LayerFit

Fits = Mapping[str, LayerFit]


def assemble(
    model: onnx.ModelProto,
    fits: Fits,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> onnx.ModelProto:
    """Return a copy of a normalised model with the layers of `fits` replaced."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    values = {name: (fit.factors, fit.bias) for name, fit in fits.items()}
    PassManager(
        [ApproximateConvPass(values, input_shapes=input_shapes), AbsorbPermutationsPass(list(fits))]
    ).run(copy)
    return copy
