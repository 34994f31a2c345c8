"""The passes that normalise layers: fits and lowering work on what these leave."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Protocol

import onnx

from onnx_lowrank.registry import Registry
from onnx_lowrank.rewriting.passes.base import PassManager, PassResult
from onnx_lowrank.rewriting.passes.fold_batchnorm import FoldBatchNormPass
from onnx_lowrank.rewriting.passes.fold_constants import FoldConstantsPass
from onnx_lowrank.rewriting.passes.normalize_conv import NormalizeConvPass
from onnx_lowrank.rewriting.passes.normalize_gemm import NormalizeGemmPass


class LayerPass(Protocol):
    """A pass that touches the layers it was given and leaves all others alone."""

    name: ClassVar[str]

    def __init__(self, layers: Collection[str]) -> None: ...

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        ...


NORMALISATION: Registry[type[LayerPass]] = Registry(
    (FoldConstantsPass, FoldBatchNormPass, NormalizeConvPass, NormalizeGemmPass)
)
"""The passes that normalise layers, in order; adding one takes its file, a line here, a test."""


def normalisation(layers: Collection[str]) -> PassManager:
    """Return the passes that normalise the named layers."""
    return PassManager([each(layers) for each in NORMALISATION])


def normalised(
    original: onnx.ModelProto, layers: Collection[str]
) -> tuple[onnx.ModelProto, PassResult]:
    """Return a copy of a model with the named layers normalised, and what was changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(original)
    return copy, normalisation(frozenset(layers)).run(copy)
