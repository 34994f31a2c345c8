"""What layers lose at a share of their operations, from the spectra of their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.types import Array

POSITIONS = 512  # of an image: as many as statistics take
LEAST_ROWS = 32  # below which nothing is known of a spectrum

# Logarithm of a scheme's error over that of `channel` where both keep .13 of the multiply-adds,
# and the power of the share with which it goes: nine layers of VGG-16, as `RankSteps.slope`.
RATIOS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"channel": (0.0, 0.0), "svd": (0.0, 0.0), "cp": (-0.95, -0.27)}
    | {"spatial": (-0.6, -0.2), "tucker2": (-0.6, 0.0)}
)
_AT = 0.13


@dataclass(frozen=True, eq=False)
class OutputSpectrum:
    """In which directions a layer's outputs vary.

    Attributes
    ----------
    mean : ndarray, shape (F,)
        Mean of the outputs.
    basis : ndarray, shape (F, K)
        Directions, those of most variance first.
    left : ndarray, shape (K + 1,)
        Share of the variance of other samples that the first k directions leave, by k.
    """

    mean: Array
    basis: Array
    left: Array

    def error(self, rank: float) -> float:
        """Return the relative error of outputs along the first directions alone."""
        ranks, left = np.arange(len(self.left)), self.left
        if len(self.left) <= len(self.mean):  # all directions together leave nothing
            ranks, left = np.append(ranks, len(self.mean)), np.append(left, 0.0)
        return float(np.sqrt(np.interp(rank, ranks, left)))

    def change(self, outputs: NDArray[Any], rank: int, axis: int) -> tuple[NDArray[Any], float]:
        """Return what outputs lose along the first `rank` directions alone, and how much of them.

        Parameters
        ----------
        outputs : ndarray
            Of one batch, channels along `axis`.
        rank, axis : int
            Directions that are kept, and where the channels are.
        """
        rows = np.moveaxis(outputs, axis, -1) - self.mean.astype(np.float32)
        basis = self.basis[:, :rank].astype(np.float32)
        change = rows @ basis @ basis.T - rows
        power = float(np.vdot(rows, rows))
        lost = float(np.vdot(change, change)) / power if power > 0 else 0.0
        return np.moveaxis(change, -1, axis), lost


def output_spectrum(samples: Sequence[NDArray[Any]]) -> OutputSpectrum | None:
    """Return the spectrum of a layer's outputs, or None where the samples say too little.

    Every other image gives the directions, the others tell what these leave.

    Parameters
    ----------
    samples : sequence of ndarray, shape (n, F)
        Outputs at some positions of each image, two images or more.
    """
    seen, unseen = (np.concatenate(samples[start::2]).astype(np.float64) for start in (0, 1))
    if len(seen) < LEAST_ROWS:
        return None
    mean, basis = _directions(seen)
    rows = unseen - mean
    power = float(np.vdot(rows, rows))
    if power <= 0:
        return None
    kept = np.cumsum(np.sum((rows @ basis) ** 2, axis=0)) / power
    return OutputSpectrum(mean, basis, np.maximum(1 - np.concatenate(([0.0], kept)), 0.0))


def _directions(rows: Array) -> tuple[Array, Array]:
    """Return the mean of rows, and the eigenvectors of their covariance, the largest first."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    if len(rows) < rows.shape[1]:
        _, _, vectors = linalg.svd(centred, full_matrices=False, check_finite=False)
        return mean, vectors.T
    _, vectors = linalg.eigh(centred.T @ centred, check_finite=False)
    return mean, vectors[:, ::-1]


def predicted_error(scheme: Scheme, conv: ConvSpec, spectrum: OutputSpectrum) -> float | None:
    """Return the relative error of a scheme's fit; None for one of which nothing is known.

    `channel` and `svd` keep directions of the outputs; the others lose less at equal operations,
    by a ratio that depends on the share that they keep.
    """
    if scheme.name not in RATIOS or conv.macs is None:
        return None
    share = (scheme.macs(conv) or 1) / conv.macs
    patch = conv.in_channels * conv.taps
    # Multiply-adds of rank R: R (C taps + F), of the layer: F C taps.
    rank = share * conv.out_channels * patch / (patch + conv.out_channels)
    level, power = RATIOS[scheme.name]
    ratio = np.exp(level + power * np.log(share / _AT)) if level or power else 1.0
    return float(min(spectrum.error(rank) * ratio, 1.0))
