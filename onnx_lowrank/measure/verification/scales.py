"""Outputs that hold values of different scales, such as boxes in pixels beside scores from 0 to 1.

A sum of squares over such an output sees its large values alone: all scores may be lost within
25 dB. So errors are compared with the signal part by part. Along each axis but that of the samples,
slices are sorted by the root mean square of the original; at the first gap of `GAP` or more between
neighbours, the large slices are one part and all below the gap are another.

1. A row of scores of classes is never divided: that one class is rare is no change of scale.
2. An axis of positions or anchors is not divided either: scales there have no gap, as neighbours
   are alike. Axes longer than `MOST_SLICES` are positions, and not looked at.
3. Slices of fewer than `FEWEST` values are not either, as their size may be chance.
4. A small part that nowhere reaches `FLOOR` of the output's peak is dead: it holds rounding, or
   scores of classes that did not occur, and is not held to anything of its own. Where all values
   are from 0 to 1, and so may be of one unit, it is dead below `LEAST_SCORE` of the peak.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.measure.verification.classifier import holds_classes
from onnx_lowrank.types import Array

GAP = 16.0  # 24 dB: what is that far below is lost whole within the bounds that are usual
FLOOR = 1e-4  # scores of 0.5 beside boxes of 4096 pixels are above it
LEAST_SCORE = 0.05  # of the peak: what scores less is no detection and no segment
FEWEST = 8  # of so many Gaussian values, one in 4e8 has a root mean square 16 times too small
MOST_SLICES = 1280  # the largest set of classes that detectors are trained on, LVIS, has 1203


@dataclass(frozen=True)
class Part:
    """Slices of an output along one axis.

    Attributes
    ----------
    axis : int
        The axis.
    places : tuple of int
        Which of its slices, ascending.
    """

    axis: int
    places: tuple[int, ...]

    def name(self, output: str) -> str:
        """Return the part in numpy's notation, such as ``boxes[:, :, 4:84]``."""
        runs = []
        for _, run in groupby(enumerate(self.places), lambda pair: pair[1] - pair[0]):
            members = [place for _, place in run]
            first, last = members[0], members[-1]
            runs.append(str(first) if first == last else f"{first}:{last + 1}")
        chosen = runs[0] if len(runs) == 1 else f"({','.join(runs)})"
        return f"{output}[{':, ' * self.axis}{chosen}]"


class SliceSums:
    """Sums of squares of an output's slices along every axis, of one batch after the other.

    Memory is bounded by `MOST_SLICES` for each axis, whatever the number of samples.
    """

    def __init__(self) -> None:
        self._signals: dict[int, Array] = {}
        self._errors: dict[int, Array] = {}
        self._peaks: dict[int, Array] = {}
        self._values: dict[int, int] = {}
        self._low = self._high = 0.0
        self._left_out: set[int] = set()

    def add(self, original: Array, error: Array, *, samples: int | None = None) -> None:
        """Add a batch: the original's values and the other's less these, both finite.

        Axis 0 counts as that of the samples unless there are not `samples` along it.
        """
        if original.size:
            self._low = min(self._low, float(original.min()))
            self._high = max(self._high, float(original.max()))
        first = 0 if samples is not None and original.shape[:1] != (samples,) else 1
        if first and original.ndim and holds_classes(original.shape, len(original)):
            return
        for axis in range(first, original.ndim):
            length = original.shape[axis]
            known = self._signals.get(axis)
            if not 2 <= length <= MOST_SLICES or (known is not None and len(known) != length):
                self._left_out.add(axis)  # its slices do not mean the same in every batch
            if axis in self._left_out or not original.size:
                continue
            others = tuple(each for each in range(original.ndim) if each != axis)
            zero = np.zeros(length)
            for sums, value in ((self._signals, original), (self._errors, error)):
                sums[axis] = sums.get(axis, zero) + np.square(value).sum(axis=others)
            peak = np.abs(original).max(axis=others)
            self._peaks[axis] = np.maximum(self._peaks.get(axis, zero), peak)
            self._values[axis] = self._values.get(axis, 0) + original.size // length

    def parts(self) -> tuple[tuple[Part, float, float], ...]:
        """Return the parts of different scales, each with its signal and error, sums of squares.

        Empty where the output is of one scale; otherwise those of every axis that divides it.
        """
        found = []
        floor = LEAST_SCORE if self._low >= 0 and self._high <= 1 + 1e-6 else FLOOR
        for axis, signal in self._signals.items():
            if axis in self._left_out or self._values[axis] < FEWEST:
                continue
            small = _small_slices(signal, self._peaks[axis], floor)
            for chosen in () if small is None else (~small, small):
                part = Part(axis, tuple(np.flatnonzero(chosen).tolist()))
                error = self._errors[axis][chosen].sum()
                found.append((part, float(signal[chosen].sum()), float(error)))
        return tuple(found)


def parts_of(batches: Iterable[tuple[NDArray[Any], int]]) -> tuple[Part, ...]:
    """Return the parts of different scales of an output; empty where it is of one.

    Parameters
    ----------
    batches : iterable of (ndarray, int)
        The original's values, samples along axis 0, and their number, batch by batch.
    """
    sums = SliceSums()
    for value, samples in batches:
        original = np.asarray(value, np.float64)
        sums.add(original, np.zeros_like(original), samples=samples)
    return tuple(part for part, _, _ in sums.parts())


def _small_slices(signal: Array, peak: Array, floor: float) -> NDArray[np.bool_] | None:
    """Return which slices are below the first gap of scale; None where there is none."""
    order = np.argsort(-signal, kind="stable")
    size = np.sqrt(signal[order])
    gaps = np.flatnonzero(size[:-1] > GAP * size[1:])
    if not gaps.size:
        return None
    small = np.zeros(len(signal), bool)
    small[order[gaps[0] + 1 :]] = True
    return small if peak[small].max() >= floor * peak.max() else None
