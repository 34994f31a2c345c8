"""Permutations of channels, as index arrays: ``gather(x, p)[i] = x[p[i]]``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Permutation = NDArray[np.int64]


def inverse(permutation: Permutation) -> Permutation:
    """Return the permutation that undoes `permutation`."""
    return np.argsort(permutation).astype(np.int64)


def is_identity(permutation: Permutation) -> bool:
    """Whether gathering by `permutation` changes nothing."""
    return bool(np.array_equal(permutation, np.arange(permutation.size)))


def is_permutation(indices: NDArray[np.generic], size: int) -> bool:
    """Whether `indices` names each of ``range(size)`` once."""
    return indices.shape == (size,) and bool(np.array_equal(np.sort(indices), np.arange(size)))


def transposed_blocks(outer: int, inner: int, width: int) -> Permutation:
    """Return the permutation of channels from (outer, inner, width) to (inner, outer, width)."""
    order = np.arange(outer * inner * width).reshape(outer, inner, width)
    return order.transpose(1, 0, 2).ravel().astype(np.int64)
