"""The input patches of a layer: what each of its outputs is a linear function of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import DataError


def resolve_pads(conv: ConvSpec, size: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return how many zeros a Conv puts before and after every axis of an input of `size`."""
    axes = len(conv.kernel)
    if conv.auto_pad == "NOTSET":
        return tuple(zip(conv.pads[:axes], conv.pads[axes:], strict=True))
    if conv.auto_pad == "VALID":
        return ((0, 0),) * axes
    pads = []
    for length, extent, stride in zip(size, _extents(conv), conv.strides, strict=True):
        total = max((math.ceil(length / stride) - 1) * stride + extent - length, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if conv.auto_pad == "SAME_UPPER" else (large, small))
    return tuple(pads)


def output_size(conv: ConvSpec, size: Sequence[int]) -> tuple[int, ...]:
    """Return the spatial size of a Conv's output for an input of `size`.

    Raises
    ------
    DataError
        The kernel does not fit into the padded input.
    """
    sizes = tuple(
        (length + sum(pad) - extent) // stride + 1
        for length, pad, extent, stride in zip(
            size, resolve_pads(conv, size), _extents(conv), conv.strides, strict=True
        )
    )
    if any(s < 1 for s in sizes):
        raise DataError(
            f"an input of size {list(size)} is too small for the kernel {list(conv.kernel)}; "
            "use larger images"
        )
    return sizes


def choose_positions(count: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return which of `count` output positions are looked at: all, or `most` drawn evenly.

    They are distinct and ascending.
    """
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))


def extract_patches(
    image: NDArray[Any], conv: ConvSpec, positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the patches under some output positions, pads included as the zeros the Conv sees.

    Parameters
    ----------
    image : ndarray, shape (C, *spatial)
        Input of a Conv for one image.
    conv : ConvSpec
        The Conv.
    positions : ndarray of int64, shape (n,)
        Row-major indices into the output's positions.

    Returns
    -------
    ndarray, shape (group, n, C / group * taps), float64
        ``W_g @ patches[g].T`` is group g's output without the bias.
    """
    axes = tuple(range(1, image.ndim))
    size = image.shape[1:]
    padded = np.pad(image, ((0, 0), *resolve_pads(conv, size)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _extents(conv), axis=axes)
    dilate: tuple[Any, ...] = (..., *(slice(None, None, d) for d in conv.dilations))
    corners = np.unravel_index(positions, output_size(conv, size))
    starts = (corner * stride for corner, stride in zip(corners, conv.strides, strict=True))
    choose: tuple[Any, ...] = (slice(None), *starts)
    chosen = windows[dilate][choose]
    groups = chosen.reshape(conv.group, -1, *chosen.shape[1:]).swapaxes(1, 2)
    patches: NDArray[np.float64] = groups.reshape(conv.group, len(positions), -1).astype(float)
    return patches


def _extents(conv: ConvSpec) -> tuple[int, ...]:
    return tuple(d * (k - 1) + 1 for k, d in zip(conv.kernel, conv.dilations, strict=True))
