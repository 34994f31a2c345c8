"""The structures that lowering keys on: values of low-rank forms, all blocks of one shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.schemes.structure import Arrays, Factors, Multilinear, OutputMap, Weight
from onnx_lowrank.schemes.two_stage import TwoStageFactors
from onnx_lowrank.types import Array

Indices = NDArray[np.int64]

__all__ = [
    "BlockCPFactors",
    "BlockTucker2Factors",
    "Factors",
    "MonochromaticFactors",
    "SpatialFactors",
    "TwoStageFactors",
]


@dataclass(frozen=True)
class MonochromaticFactors(Factors):
    """``W[f] = colours[colour_of[f]] (x) filters[f]``: every output sees one colour.

    Attributes
    ----------
    colours : ndarray, shape (C', C)
        The colour transform; rows of unit length.
    filters : ndarray, shape (F, *kernel)
        One spatial filter per output.
    colour_of : ndarray of int64, shape (F,)
        The colour each output sees; every colour serves as many outputs.
    """

    colours: Array
    filters: Array
    colour_of: Indices

    def reconstruct(self) -> Array:
        """Return the dense weight, ``(F, C, *kernel)``."""
        colours = self.colours[self.colour_of]
        return (
            colours.reshape(*colours.shape, *(1,) * (self.filters.ndim - 1)) * self.filters[:, None]
        )

    def multilinear(self) -> Multilinear:
        """Return one block for each colour, its outputs together."""
        colours, kernel = self.colours, self.filters.shape[1:]
        outputs = members(self.colour_of, len(colours))  # (colour, F / C')
        shape = (self.filters.shape[0], colours.shape[1], *kernel)

        def gather(weight: Weight) -> Array:
            return weight.reshape(*weight.shape[:2], -1)[outputs]

        def scatter(blocks: Array) -> Weight:
            flat = np.empty((*shape[:2], blocks.shape[-1]))
            flat[outputs] = blocks
            return flat.reshape(shape)

        def rebuild(arrays: Arrays) -> MonochromaticFactors:
            filters = np.empty((shape[0], arrays[1].shape[-1]))
            filters[outputs] = arrays[1]
            return replace(self, colours=arrays[0], filters=filters.reshape(-1, *kernel))

        filters = self.filters.reshape(len(self.filters), -1)[outputs]
        return Multilinear(("kc", "kfp", "kfcp"), (colours, filters), gather, scatter, rebuild)


@dataclass(frozen=True)
class BlockTucker2Factors(Factors):
    """G x H blocks, each 1x1 to K1 channels, the kernel to K2 channels, 1x1 to its outputs.

    G = H = 1 is Tucker-2.

    Attributes
    ----------
    input_clusters : ndarray of int64, shape (G, C / G)
        Input channels of every cluster.
    output_clusters : ndarray of int64, shape (H, F / H)
        Output channels of every cluster.
    inputs : ndarray, shape (G, H, K1, C / G)
    cores : ndarray, shape (G, H, K2, K1, *kernel)
    outputs : ndarray, shape (G, H, F / H, K2)
    """

    input_clusters: Indices
    output_clusters: Indices
    inputs: Array
    cores: Array
    outputs: Array

    def reconstruct(self) -> Array:
        """Return the dense weight, ``(F, C, *kernel)``."""
        g, h, k2, k1, *kernel = self.cores.shape
        cores = self.cores.reshape(g, h, k2, k1, -1)
        blocks = np.einsum(
            "ghfk,ghkjp,ghjc->ghfcp", self.outputs, cores, self.inputs, optimize=True
        )
        return scatter_blocks(blocks, self.input_clusters, self.output_clusters, tuple(kernel))

    def output_map(self) -> OutputMap | None:
        """Return the last 1x1 stage of one block."""
        return _output_map(self)

    def multilinear(self) -> Multilinear:
        """Return all blocks side by side."""
        cores = self.cores.reshape(*self.cores.shape[:4], -1)

        def rebuild(arrays: Arrays) -> BlockTucker2Factors:
            shaped = arrays[1].reshape(self.cores.shape)
            return replace(self, inputs=arrays[0], cores=shaped, outputs=arrays[2])

        return Multilinear(
            ("ghjc", "ghkjp", "ghfk", "ghfcp"),
            (self.inputs, cores, self.outputs),
            *_both_ways(self, self.cores.shape[4:]),
            rebuild,
            self.input_clusters[:, None],
        )


@dataclass(frozen=True)
class BlockCPFactors(Factors):
    """G x H blocks, each 1x1 to K channels, a depthwise kernel, 1x1 to its outputs.

    G = H = 1 is CP.

    Attributes
    ----------
    input_clusters : ndarray of int64, shape (G, C / G)
    output_clusters : ndarray of int64, shape (H, F / H)
    inputs : ndarray, shape (G, H, K, C / G)
    kernels : ndarray, shape (G, H, K, *kernel)
    outputs : ndarray, shape (G, H, F / H, K)
    """

    input_clusters: Indices
    output_clusters: Indices
    inputs: Array
    kernels: Array
    outputs: Array

    def reconstruct(self) -> Array:
        """Return the dense weight, ``(F, C, *kernel)``."""
        g, h, k, *kernel = self.kernels.shape
        kernels = self.kernels.reshape(g, h, k, -1)
        terms = (self.inputs[..., None] * kernels[..., None, :]).reshape(g, h, k, -1)
        blocks = (self.outputs @ terms).reshape(g, h, -1, self.inputs.shape[3], kernels.shape[3])
        return scatter_blocks(blocks, self.input_clusters, self.output_clusters, tuple(kernel))

    def output_map(self) -> OutputMap | None:
        """Return the last 1x1 stage of one block."""
        return _output_map(self)

    def multilinear(self) -> Multilinear:
        """Return all blocks side by side."""
        kernels = self.kernels.reshape(*self.kernels.shape[:3], -1)

        def rebuild(arrays: Arrays) -> BlockCPFactors:
            shaped = arrays[1].reshape(self.kernels.shape)
            return replace(self, inputs=arrays[0], kernels=shaped, outputs=arrays[2])

        return Multilinear(
            ("ghkc", "ghkp", "ghfk", "ghfcp"),
            (self.inputs, kernels, self.outputs),
            *_both_ways(self, self.kernels.shape[3:]),
            rebuild,
            self.input_clusters[:, None],
        )

    def cancellation(self) -> float:
        """Return how much larger the largest term is than the weight, in the Frobenius norm.

        Terms of CP may grow without bound against each other (de Silva and Lim 2008). A layer in
        float32 loses about this many times 6e-8 to it.
        """
        kernels = self.kernels.reshape(*self.kernels.shape[:3], -1)
        sizes = np.linalg.norm(self.inputs, axis=-1) * np.linalg.norm(kernels, axis=-1)
        sizes = sizes * np.linalg.norm(self.outputs, axis=-2)
        whole = float(np.linalg.norm(self.reconstruct()))
        return float(sizes.max()) / whole if whole > 0 else 0.0


@dataclass(frozen=True)
class SpatialFactors(Factors):
    """Two Convs in a row, of which one has the kernel's height and the other its width.

    Attributes
    ----------
    first : ndarray, shape (R, C, X, 1) or (R, C, 1, Y)
        Weight of the first Conv; along its axis it carries the layer's stride, dilation and pads.
    second : ndarray, shape (F, R, 1, Y) or (F, R, X, 1)
        Weight of the second Conv.
    """

    first: Array
    second: Array

    def reconstruct(self) -> Array:
        """Return the dense weight, ``(F, C, X, Y)``."""
        product = np.tensordot(self.second, self.first, axes=(1, 0))  # f, x2, y2, c, x1, y1
        f, x2, y2, c, x1, y1 = product.shape
        return product.transpose(0, 3, 1, 4, 2, 5).reshape(f, c, x2 * x1, y2 * y1)

    def output_map(self) -> OutputMap:
        """Return the second Conv, of which every tap has channels of its own."""
        second = self.second
        size = second[0].size
        channels = np.eye(size).reshape(size, *second.shape[1:])
        inputs = SpatialFactors(self.first, channels).reconstruct()
        return OutputMap(
            second.reshape(len(second), size),
            inputs,
            lambda outputs: replace(self, second=outputs.reshape(second.shape)),
        )

    def multilinear(self) -> Multilinear:
        """Return the kernel's rows and columns apart."""
        first, second = self.first, self.second
        column_first = first.shape[3] == 1
        arrays = (
            (first[..., 0], second[:, :, 0]) if column_first else (first[:, :, 0], second[..., 0])
        )

        def rebuild(arrays: Arrays) -> SpatialFactors:
            return SpatialFactors(arrays[0].reshape(first.shape), arrays[1].reshape(second.shape))

        subscripts = ("kcx", "fky", "fcxy") if column_first else ("kcy", "fkx", "fcxy")
        return Multilinear(subscripts, arrays, lambda w: w, lambda w: w, rebuild)


def _output_map(factors: BlockTucker2Factors | BlockCPFactors) -> OutputMap | None:
    if len(factors.input_clusters) > 1 or len(factors.output_clusters) > 1:
        return None
    rank = factors.outputs.shape[-1]
    channels = np.arange(rank, dtype=np.int64)[None]
    inputs = replace(factors, output_clusters=channels, outputs=np.eye(rank)[None, None])
    order = factors.output_clusters[0]
    weight = np.empty(factors.outputs.shape[2:])
    weight[order] = factors.outputs[0, 0]
    return OutputMap(
        weight,
        inputs.reconstruct(),
        lambda outputs: replace(factors, outputs=outputs[order][None, None]),
    )


def _both_ways(
    factors: BlockTucker2Factors | BlockCPFactors, kernel: tuple[int, ...]
) -> tuple[Callable[[Weight], Array], Callable[[Array], Weight]]:
    clusters = factors.input_clusters, factors.output_clusters
    return (
        lambda weight: gather_blocks(weight, *clusters),
        lambda blocks: scatter_blocks(blocks, *clusters, kernel),
    )


def gather_blocks(weight: Array, inputs: Indices, outputs: Indices) -> Array:
    """Cut ``(F, C, *kernel)`` into blocks ``(G, H, F / H, C / G, taps)``."""
    flat = weight.reshape(*weight.shape[:2], -1)
    return flat[outputs[None, :, :, None], inputs[:, None, None, :]]


def scatter_blocks(
    blocks: Array, inputs: Indices, outputs: Indices, kernel: tuple[int, ...]
) -> Array:
    """Put blocks ``(G, H, F / H, C / G, taps)`` back into ``(F, C, *kernel)``."""
    flat = np.empty((outputs.size, inputs.size, blocks.shape[-1]))
    flat[outputs[None, :, :, None], inputs[:, None, None, :]] = blocks
    return flat.reshape(outputs.size, inputs.size, *kernel)


def members(labels: Indices, clusters: int) -> Indices:
    """Return the points of every cluster in rising order, ``(clusters, points / clusters)``."""
    return np.argsort(labels, kind="stable").reshape(clusters, -1).astype(np.int64)
