"""Every structure as a multilinear expression of its arrays: one algorithm refines them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np

from onnx_lowrank.schemes.base import Factors, Weight
from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    MonochromaticFactors,
    TwoStageFactors,
    gather_blocks,
    members,
    scatter_blocks,
)
from onnx_lowrank.schemes.spatial import SpatialFactors
from onnx_lowrank.types import Array

Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Multilinear:
    """``W~ = scatter(einsum(subscripts, *arrays))``, linear in each array.

    Attributes
    ----------
    subscripts : tuple of str
        Indices of each array, then those of the result.
    arrays : tuple of ndarray
        The factors.
    gather, scatter : callable
        From a weight ``(F, C, *kernel)`` to the result's indices, and back: a permutation of
        entries, so that each is the other's adjoint.
    rebuild : callable
        Factors of other arrays of the same shapes.
    """

    subscripts: tuple[str, ...]
    arrays: Arrays
    gather: Callable[[Weight], Array]
    scatter: Callable[[Array], Weight]
    rebuild: Callable[[Arrays], Factors]

    @property
    def blocks(self) -> str:
        """The indices in front that all arrays share with the result."""
        *inputs, result = self.subscripts
        return "".join(letter for letter in result if all(letter in s for s in inputs))

    def with_array(self, index: int, array: Array) -> Multilinear:
        """Return the expression with one array replaced."""
        arrays = (*self.arrays[:index], array, *self.arrays[index + 1 :])
        return replace(self, arrays=arrays)

    def dense(self) -> Weight:
        """Return the weight that the arrays stand for."""
        *inputs, result = self.subscripts
        return self.scatter(np.einsum(f"{','.join(inputs)}->{result}", *self.arrays, optimize=True))

    def adjoint(self, index: int, weight: Weight) -> Array:
        """Return the gradient of ``<weight, dense()>`` by one array."""
        *inputs, result = self.subscripts
        target = inputs.pop(index)
        others = (*self.arrays[:index], *self.arrays[index + 1 :])
        expression = f"{','.join([result, *inputs])}->{target}"
        return np.asarray(np.einsum(expression, self.gather(weight), *others, optimize=True))


@singledispatch
def multilinear(factors: Factors) -> Multilinear:
    """Return factors as a multilinear expression.

    Raises
    ------
    TypeError
        If no expression is registered for their class.
    """
    raise TypeError(f"no multilinear expression for {type(factors).__name__}")


@multilinear.register
def _(factors: MonochromaticFactors) -> Multilinear:
    colours, kernel = factors.colours, factors.filters.shape[1:]
    outputs = members(factors.colour_of, len(colours))  # (colour, F / C')
    shape = (factors.filters.shape[0], colours.shape[1], *kernel)

    def gather(weight: Weight) -> Array:
        return weight.reshape(*weight.shape[:2], -1)[outputs]

    def scatter(blocks: Array) -> Weight:
        flat = np.empty((*shape[:2], blocks.shape[-1]))
        flat[outputs] = blocks
        return flat.reshape(shape)

    def rebuild(arrays: Arrays) -> MonochromaticFactors:
        filters = np.empty((shape[0], arrays[1].shape[-1]))
        filters[outputs] = arrays[1]
        return replace(factors, colours=arrays[0], filters=filters.reshape(-1, *kernel))

    filters = factors.filters.reshape(len(factors.filters), -1)[outputs]
    return Multilinear(("kc", "kfp", "kfcp"), (colours, filters), gather, scatter, rebuild)


@multilinear.register
def _(factors: BlockTucker2Factors) -> Multilinear:
    cores = factors.cores.reshape(*factors.cores.shape[:4], -1)

    def rebuild(arrays: Arrays) -> BlockTucker2Factors:
        shaped = arrays[1].reshape(factors.cores.shape)
        return replace(factors, inputs=arrays[0], cores=shaped, outputs=arrays[2])

    return Multilinear(
        ("ghjc", "ghkjp", "ghfk", "ghfcp"),
        (factors.inputs, cores, factors.outputs),
        *_blocks(factors, factors.cores.shape[4:]),
        rebuild,
    )


@multilinear.register
def _(factors: BlockCPFactors) -> Multilinear:
    kernels = factors.kernels.reshape(*factors.kernels.shape[:3], -1)

    def rebuild(arrays: Arrays) -> BlockCPFactors:
        shaped = arrays[1].reshape(factors.kernels.shape)
        return replace(factors, inputs=arrays[0], kernels=shaped, outputs=arrays[2])

    return Multilinear(
        ("ghkc", "ghkp", "ghfk", "ghfcp"),
        (factors.inputs, kernels, factors.outputs),
        *_blocks(factors, factors.kernels.shape[3:]),
        rebuild,
    )


@multilinear.register
def _(factors: TwoStageFactors) -> Multilinear:
    group, rank, *rest = factors.kernels.shape
    shape = (group * factors.outputs.shape[1], *rest)

    def rebuild(arrays: Arrays) -> TwoStageFactors:
        return TwoStageFactors(arrays[0].reshape(factors.kernels.shape), arrays[1])

    return Multilinear(
        ("gkn", "gfk", "gfn"),
        (factors.kernels.reshape(group, rank, -1), factors.outputs),
        lambda weight: weight.reshape(group, -1, int(np.prod(rest))),
        lambda blocks: blocks.reshape(shape),
        rebuild,
    )


@multilinear.register
def _(factors: SpatialFactors) -> Multilinear:
    first, second = factors.first, factors.second
    column_first = first.shape[3] == 1

    def squeeze(first: Array, second: Array) -> Arrays:
        return (
            (first[..., 0], second[:, :, 0]) if column_first else (first[:, :, 0], second[..., 0])
        )

    def rebuild(arrays: Arrays) -> SpatialFactors:
        return SpatialFactors(arrays[0].reshape(first.shape), arrays[1].reshape(second.shape))

    subscripts = ("kcx", "fky", "fcxy") if column_first else ("kcy", "fkx", "fcxy")
    return Multilinear(subscripts, squeeze(first, second), lambda w: w, lambda w: w, rebuild)


def _blocks(
    factors: BlockTucker2Factors | BlockCPFactors, kernel: tuple[int, ...]
) -> tuple[Callable[[Weight], Array], Callable[[Array], Weight]]:
    clusters = factors.input_clusters, factors.output_clusters
    return (
        lambda weight: gather_blocks(weight, *clusters),
        lambda blocks: scatter_blocks(blocks, *clusters, kernel),
    )
