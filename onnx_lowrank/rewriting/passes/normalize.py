"""The passes that bring layers into the one form that fits and lowering work on."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnx_lowrank.rewriting.passes.base import PassManager, PassResult
from onnx_lowrank.rewriting.passes.fold_batchnorm import FoldBatchNormPass
from onnx_lowrank.rewriting.passes.fold_constants import FoldConstantsPass
from onnx_lowrank.rewriting.passes.normalize_conv import NormalizeConvPass
from onnx_lowrank.rewriting.passes.normalize_gemm import NormalizeGemmPass


def normalisation(layers: Collection[str]) -> PassManager:
    """Return the passes that normalise the named layers and leave all others alone."""
    return PassManager(
        [
            FoldConstantsPass(layers),
            FoldBatchNormPass(layers),
            NormalizeConvPass(layers),
            NormalizeGemmPass(layers),
        ]
    )


def normalised(
    original: onnx.ModelProto, layers: Collection[str]
) -> tuple[onnx.ModelProto, PassResult]:
    """Return a copy of a model with the named layers normalised, and what was changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(original)
    return copy, normalisation(frozenset(layers)).run(copy)
