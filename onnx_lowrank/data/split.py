"""One data set as several that have no sample in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.data.dataset import Dataset, Sample, Source

# Neighbours in a folder often show one scene or one class: short runs of them stay together.
RUN = 8
_FEWEST_RUNS = 10  # of which parts are made: shorter ones where there are few samples
_STEP = (math.sqrt(5) - 1) / 2


def split(dataset: Dataset, shares: Sequence[float]) -> tuple[Dataset, ...]:
    """Split a data set by the places of its samples.

    Places go to the parts in turn, by the multiples of the golden section: every stretch of the
    data, however they are sorted, is shared out in nearly the same proportions. Runs of `RUN`
    neighbours stay together, of fewer where there are not enough samples for ten such runs.

    Parameters
    ----------
    dataset : Dataset
        The samples; its limit holds for all parts together.
    shares : sequence of float
        Positive; relative sizes of the parts.

    Returns
    -------
    tuple of Dataset
        In the order of `shares`. A part is empty where there are fewer samples than
        `fewest_samples`.
    """
    run = min(max((dataset.samples or 0) // _FEWEST_RUNS, 1), RUN)
    bounds = _bounds(shares)
    return tuple(
        Dataset(
            _Part(dataset.source, dataset.limit, bounds, index, run),
            dataset.inputs,
            batch=dataset.batch,
        )
        for index in range(len(bounds))
    )


def fewest_samples(shares: Sequence[float]) -> int:
    """Return the least number of samples of which `split` leaves no part empty."""
    bounds = _bounds(shares)
    missing = set(range(len(bounds)))
    for place in count():
        missing.discard(_part_of(place, bounds))
        if not missing:
            return place + 1
    raise AssertionError  # every part of a positive share is reached


def _bounds(shares: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(np.cumsum(shares) / np.sum(shares))


def _part_of(place: int, bounds: NDArray[np.float64]) -> int:
    # Half a step on, so that a whole number of steps never falls on a bound.
    return int(np.searchsorted(bounds, ((place + 0.5) * _STEP) % 1.0, side="right"))


class _Part:
    """The samples of a source at the places of one part."""

    def __init__(
        self, source: Source, limit: int | None, bounds: NDArray[np.float64], index: int, run: int
    ) -> None:
        self._source = source
        self._limit = limit
        self._bounds = bounds
        self._index = index
        self._run = run

    @property
    def skipped(self) -> Sequence[str]:
        return self._source.skipped

    @property
    def samples(self) -> int | None:
        known = self._source.samples
        if known is None:
            return None
        most = known if self._limit is None else min(known, self._limit)
        return sum(self._owns(place) for place in range(most))

    def __iter__(self) -> Iterator[Sample]:
        for place, sample in enumerate(islice(self._source, self._limit)):
            if self._owns(place):
                yield sample

    def _owns(self, place: int) -> bool:
        return _part_of(place // self._run, self._bounds) == self._index
