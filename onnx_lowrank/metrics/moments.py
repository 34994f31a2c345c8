"""First and second moments of a layer's input patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.types import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseMoments:
    """Moments of patches x of length K, as matrices, one for each group.

    Attributes
    ----------
    mean : ndarray, shape (groups, K), float64
        ``E[x]``.
    second : ndarray, shape (groups, K, K), float64
        ``E[x x^T]``.
    original_mean : ndarray, shape (groups, K), float64, or None
        ``E[x_o]`` of the original network's patches x_o at the same places; None where x are the
        original network's.
    drift : ndarray, shape (groups, F / groups, K), float64, or None
        ``E[W (x_o - x) x^T]``, W the layer's weight: what its outputs lack, with its inputs.
    """

    mean: Array
    second: Array
    original_mean: Array | None = None
    drift: Array | None = None

    def __post_init__(self) -> None:
        groups, length = self.mean.shape
        fits = self.second.shape == (groups, length, length)
        if self.drift is not None:
            fits &= self.drift.ndim == 3 and self.drift.shape[::2] == (groups, length)
        if not fits or (self.original_mean is None) != (self.drift is None):
            shapes = [m.shape for m in (self.second, self.drift) if m is not None]
            raise ValueError(f"moments of shapes {shapes} do not fit a mean of {self.mean.shape}")


@dataclass(frozen=True, kw_only=True, eq=False)
class RowMoments:
    """Moments of the patches x of a layer without groups, as samples themselves.

    The form taken where there are fewer samples than inputs, or where matrices would be too large.

    Attributes
    ----------
    rows : ndarray, shape (n, K), float64
        Every input vector.
    weights : ndarray, shape (n,), float64
        Weight of each in an expectation; they sum to one.
    original_rows : ndarray, shape (n, K), float64, or None
        The original network's vectors at the same places; None where `rows` are the original
        network's.
    """

    rows: Array
    weights: Array
    original_rows: Array | None = None

    def __post_init__(self) -> None:
        shapes = {m.shape for m in (self.rows, self.original_rows) if m is not None}
        if len(shapes) > 1 or self.rows.shape[:1] != self.weights.shape:
            raise ValueError(f"rows of {shapes} and weights of {self.weights.shape} do not fit")

    @property
    def mean(self) -> Array:
        """``E[x]``, shape (1, K)."""
        return (self.weights @ self.rows)[None]

    @property
    def original_mean(self) -> Array | None:
        """``E[x_o]``, shape (1, K), or None."""
        return None if self.original_rows is None else (self.weights @ self.original_rows)[None]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStatistics:
    """What a pass over the data tells of one layer's input.

    Attributes
    ----------
    images : int
        Number of images.
    samples : int
        Number of patches that were looked at.
    intensity, centred_intensity : float
        How far the second moment, and the covariance, are to be shrunk towards a multiple of the
        identity, 0 to 1: see `shrinkage_intensity`.
    mean_intensity : float
        How far the mean is to be shrunk towards zero, 0 to 1.
    moments : DenseMoments or RowMoments
        Moments of the patches, not shrunk.
    """

    images: int
    samples: int
    intensity: float
    centred_intensity: float
    mean_intensity: float
    moments: DenseMoments | RowMoments

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the statistics as named arrays; `from_arrays` reads them back."""
        values = ((field.name, getattr(self.moments, field.name)) for field in fields(self.moments))
        return {
            "counts": np.array([self.images, self.samples]),
            "intensities": np.array([self.intensity, self.centred_intensity, self.mean_intensity]),
            **{name: value for name, value in values if value is not None},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LayerStatistics:
        """Return the statistics that `to_arrays` has written.

        Raises
        ------
        ValueError
            The arrays are no such statistics.
        """
        named = dict(arrays)
        try:
            images, samples = (int(count) for count in named.pop("counts"))
            intensity, centred, of_mean = (float(value) for value in named.pop("intensities"))
            if any(value.dtype != np.float64 for value in named.values()):
                raise TypeError("arrays of another type than float64")
            moments = RowMoments(**named) if "rows" in named else DenseMoments(**named)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no statistics of a layer: {error}") from None
        return cls(
            images=images,
            samples=samples,
            intensity=intensity,
            centred_intensity=centred,
            mean_intensity=of_mean,
            moments=moments,
        )
