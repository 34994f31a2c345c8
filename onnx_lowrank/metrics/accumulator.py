"""Sums of a layer's input patches, image by image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics, RowMoments
from onnx_lowrank.metrics.shrinkage import ImageMoments
from onnx_lowrank.types import Array

SINGLE_FROM = 1024  # entries of a patch from which products are summed in blocks of float32


class MomentAccumulator:
    """Sums up the patches of one layer, in float64.

    A product of two float32 numbers is exact in float64, so only the additions round: a moment of
    n patches is off by at most ``n * 2^-53`` of ``E|x|^2``, as much as any float64 sum. Of patches
    of `SINGLE_FROM` entries and more, blocks of about as many patches as entries are summed in
    float32, and these sums in float64: an entry is off by no more than ``b * 2^-24`` of
    ``E|x_i x_j|``, b the patches of a block, and by about the root of b in place of b, which the
    shrinkage of so large moments exceeds by far.

    Parameters
    ----------
    groups, length : int
        Number of groups, and length K of a group's patch.
    dense : bool
        Whether to sum matrices; otherwise the samples of a layer with one group are kept.
    weight : ndarray, shape (F, C / groups, *kernel), float64, optional
        The layer's weight, where `add` is given the original network's patches too. Products with
        it have F / groups rows, not K.
    """

    def __init__(
        self, groups: int, length: int, *, dense: bool = True, weight: Array | None = None
    ) -> None:
        matrices = groups if dense else 0
        self._length = length
        self._dense = dense
        self._weight = None if weight is None else weight.reshape(groups, -1, length)
        self._images = 0
        self._samples = 0
        self._positions = 0.0
        self._noise = ImageMoments(groups, length)
        self._sum = np.zeros((groups, length))
        self._second = np.zeros((matrices, length, length))
        self._single = length >= SINGLE_FROM
        self._waiting: list[list[NDArray[np.float32]]] = [[] for _ in range(matrices)]
        self._original_sum = np.zeros((groups, length))
        outputs = 0 if self._weight is None else self._weight.shape[1]
        self._drift = np.zeros((matrices, outputs, length))
        self._rows: list[Array] = []
        self._original_rows: list[Array] = []
        self._row_weights: list[float] = []

    def add(self, patches: Array, *, positions: int, original: Array | None = None) -> None:
        """Add one image.

        Parameters
        ----------
        patches : ndarray, shape (groups, n, K), float64
            Patches at some of the layer's output positions.
        positions : int
            Number of all its output positions: the image's weight.
        original : ndarray, shape (groups, n, K), float64, optional
            The original network's patches at the same positions.
        """
        count = patches.shape[1]
        scale = positions / count
        self._images += 1
        self._samples += count
        self._positions += positions
        mean = patches.mean(axis=1)
        self._sum += positions * mean
        norm = 0.0
        moment_mean = np.empty_like(mean)
        for group, x in enumerate(patches):
            norm += self._add_group(group, scale, x) / count**2
            # x.T is stored by columns, as BLAS wants it.
            along = blas.dgemv(1 / count, x.T, mean[group], trans=1)
            moment_mean[group] = blas.dgemv(1, x.T, along)
        self._noise.add(positions, norm=norm, mean=mean, moment_mean=moment_mean)
        if original is not None:
            self._original_sum += positions * original.mean(axis=1)
        if not self._dense:
            self._row_weights += [scale] * count
            self._rows.append(patches[0])
            if original is not None:
                self._original_rows.append(original[0])
        elif original is not None:
            assert self._weight is not None
            for group, x in enumerate(patches):
                # Differences first: inputs that agree give zero, not what rounding leaves of it.
                lack = blas.dgemm(1, (original[group] - x).T, self._weight[group].T, trans_a=1)
                # BLAS counts by columns: in its eyes this adds x^T lack to the transpose.
                matrix = self._drift[group].T
                blas.dgemm(scale, x.T, lack, beta=1, c=matrix, overwrite_c=1)

    def _add_group(self, group: int, scale: float, x: Array) -> float:
        """Add the patches of one group to its matrix, and return ``|x^T x|_F^2``."""
        # One library for all products: numpy's has threads of its own, which would wait for work
        # on the cores that this one needs.
        fewer = len(x) < self._length
        if self._single:
            return self._add_single(group, scale, x)
        triangle = blas.dsyrk(1, x.T, trans=fewer, lower=1)
        if self._dense:
            # The lower triangle of the transpose, which is what BLAS sees, is the upper one.
            matrix = self._second[group].T
            if fewer:
                blas.dsyrk(scale, x.T, beta=1, c=matrix, lower=1, overwrite_c=1)
            else:
                matrix += scale * triangle
        return _squared_norm(triangle)

    def _add_single(self, group: int, scale: float, x: Array) -> float:
        """Do the same in blocks of float32 rows, which are summed in float64."""
        rows = x.astype(np.float32)
        triangle = blas.ssyrk(1, rows.T, trans=len(rows) < self._length, lower=1)
        if self._dense:
            waiting = self._waiting[group]
            waiting.append(np.float32(np.sqrt(scale)) * rows)
            if sum(map(len, waiting)) >= self._length:
                self._flush(group)
        return _squared_norm(triangle)

    def _flush(self, group: int) -> None:
        """Add the float32 rows that wait to their matrix."""
        if self._waiting[group]:
            block = np.concatenate(self._waiting[group])
            # The lower triangle of the transpose, which is what BLAS sees, is the upper one.
            self._second[group].T[:] += blas.ssyrk(1, block.T, lower=1)
            self._waiting[group].clear()

    def result(self) -> LayerStatistics:
        """Return the statistics of at least one image; the accumulator is spent then."""
        for group in range(len(self._waiting)):
            self._flush(group)
        mean = self._sum / self._positions
        asymmetric = self._weight is not None
        moments: DenseMoments | RowMoments
        if self._dense:
            for matrix in self._second:
                _mirror(matrix)
            self._second /= self._positions
            self._drift /= self._positions
            moments = DenseMoments(
                mean=mean,
                second=self._second,
                original_mean=self._original_sum / self._positions if asymmetric else None,
                drift=self._drift if asymmetric else None,
            )
            norm = float(np.vdot(self._second, self._second))
            traces = np.trace(self._second, axis1=1, axis2=2)
            moment_mean = (self._second @ mean[:, :, None])[:, :, 0]
        else:
            moments = RowMoments(
                rows=np.concatenate(self._rows),
                weights=np.array(self._row_weights) / self._positions,
                original_rows=np.concatenate(self._original_rows) if asymmetric else None,
            )
            scaled = np.sqrt(moments.weights)[:, None] * moments.rows
            gram = scaled @ scaled.T
            norm = float(np.vdot(gram, gram))
            traces = np.array([np.trace(gram)])
            moment_mean = ((scaled @ mean[0]) @ scaled)[None]
        intensity, centred, of_mean = self._noise.intensities(
            norm=norm, traces=traces, moment_mean=moment_mean
        )
        return LayerStatistics(
            images=self._images,
            samples=self._samples,
            intensity=intensity,
            centred_intensity=centred,
            mean_intensity=of_mean,
            moments=moments,
        )


def _squared_norm(triangle: NDArray[np.floating]) -> float:
    """Return the squared norm of a symmetric matrix, of which one triangle is given."""
    triangle = triangle.astype(np.float64, copy=False)
    diagonal = triangle.diagonal()
    return 2 * float(np.sum(triangle**2)) - float(np.sum(diagonal**2))


def _mirror(matrix: Array, block: int = 512) -> None:
    """Copy the upper triangle of a square matrix onto the lower one, without a second matrix."""
    for start in range(0, len(matrix), block):
        rows = slice(start, min(start + block, len(matrix)))
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T
        corner = matrix[rows, rows]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
