"""Whole models of some fits."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_lowrank.planning.fit import LayerFit
from onnx_lowrank.rewriting.passes.replacement import replacement

Fits = Mapping[str, LayerFit]


def assemble(
    model: onnx.ModelProto,
    fits: Fits,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    portable: bool = False,
) -> onnx.ModelProto:
    """Return a copy of a normalised model with the layers of `fits` replaced by `replacement`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    values = {name: (fit.factors, fit.bias) for name, fit in fits.items()}
    replacement(values, input_shapes=input_shapes, portable=portable).run(copy)
    return copy
