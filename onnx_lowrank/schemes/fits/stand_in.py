"""A layer's weight under a separable stand-in of its metric, which all ranks of CP start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnx_lowrank.schemes.fits.cp_start import SpatialSVD
from onnx_lowrank.types import Array


@dataclass(frozen=True, eq=False)
class StandIn:
    """Blocks of the target under the stand-in, and how terms of them become terms of the target.

    Attributes
    ----------
    cores : ndarray, shape (G, F', C', P)
        The blocks, within the principal subspaces of both sides.
    start : SpatialSVD
        Where their fits start.
    outputs, inputs : list of ndarray, shapes (F, F') and (C', C)
        What turns vectors over the sides of a core into those of the target.
    kernels : ndarray, shape (P, P)
        The same for kernels.
    """

    cores: NDArray[Any]
    start: SpatialSVD
    outputs: list[Array]
    inputs: list[Array]
    kernels: Array
