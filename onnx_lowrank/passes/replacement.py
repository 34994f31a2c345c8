"""The passes that put factors in the place of layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.passes.absorb_permutations import AbsorbPermutationsPass
from onnx_lowrank.passes.approximate_conv import ApproximateConvPass
from onnx_lowrank.passes.base import Pass, PassManager
from onnx_lowrank.passes.fuse_activation import FuseActivationPass
from onnx_lowrank.passes.portable_lrn import PortableLrnPass
from onnx_lowrank.schemes.factors import Factors


def replacement(
    fits: Mapping[str, tuple[Factors, NDArray[np.float64] | None]],
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    portable: bool = False,
) -> PassManager:
    """Return the passes that replace the layers of `fits` in a normalised model.

    Parameters
    ----------
    fits, input_shapes, portable
        As of `ApproximateConvPass`; with portable nodes go those of local response normalisation,
        and activations fused into nodes.
    """
    passes: list[Pass] = [
        ApproximateConvPass(fits, input_shapes=input_shapes, portable=portable),
        AbsorbPermutationsPass(frozenset(fits)),
    ]
    if portable:
        passes += [PortableLrnPass(), FuseActivationPass()]
    return PassManager(passes)
