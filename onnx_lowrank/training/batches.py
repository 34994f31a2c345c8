"""Data for training: shuffled by a seed, in steps of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.data.dataset import batched_inputs

# What is shuffled at once; more data are shuffled piece by piece.
BUFFER = 512 << 20  # bytes


@dataclass(frozen=True)
class Rows:
    """Samples that a model is run on at once.

    Attributes
    ----------
    feeds : dict of str to ndarray
        Inputs.
    labels : ndarray of int64, shape (samples,), or None
        Classes.
    samples : int
        Their number.
    """

    feeds: dict[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    samples: int


def steps_of(dataset: Dataset, batch: int) -> int:
    """Return the number of steps of an epoch, by a pass over the data where nothing else tells."""
    known = dataset.samples
    samples = sum(each.samples for each in dataset) if known is None else known
    return -(-samples // batch)


def whole_batches(dataset: Dataset) -> Iterator[Rows]:
    """Yield the data as they come, without the rows that only fill up a fixed batch.

    Where the model fixes its batch, an incomplete last one is left out.
    """
    fixed = _fixed_batch(dataset)
    for batch in dataset:
        if fixed is None or batch.samples == fixed:
            yield Rows(batch.feeds, batch.labels, batch.samples)


def shuffled(dataset: Dataset, batch: int, rng: np.random.Generator) -> Iterator[list[Rows]]:
    """Yield the steps of an epoch: `batch` samples each, the last one fewer.

    Where the model fixes its batch, a step is several runs of it; samples that do not fill one are
    left out of the epoch.
    """
    fixed = _fixed_batch(dataset)
    held: list[Batch] = []
    size = 0
    for each in dataset:
        held.append(each)
        size += sum(value.nbytes for value in each.feeds.values())
        if size >= BUFFER:
            yield from _steps(dataset, held, batch, fixed, rng)
            held, size = [], 0
    yield from _steps(dataset, held, batch, fixed, rng)


def _steps(
    dataset: Dataset,
    held: list[Batch],
    batch: int,
    fixed: int | None,
    rng: np.random.Generator,
) -> Iterator[list[Rows]]:
    batched = batched_inputs(dataset.inputs)
    places = [(index, row) for index, each in enumerate(held) for row in range(each.samples)]
    order = rng.permutation(len(places))
    for first in range(0, len(order), batch):
        chosen = [places[index] for index in order[first : first + batch]]
        chunk = fixed or len(chosen)
        runs = [chosen[i : i + chunk] for i in range(0, len(chosen), chunk)]
        step = [_rows(held, run, batched) for run in runs if len(run) == chunk]
        if step:
            yield step


def _rows(held: list[Batch], places: list[tuple[int, int]], batched: dict[str, bool]) -> Rows:
    first = held[places[0][0]]
    feeds = {
        name: np.stack([held[index].feeds[name][row] for index, row in places])
        if batched[name]
        else first.feeds[name]
        for name in first.feeds
    }
    labels = None
    if first.labels is not None:
        # Data are labelled throughout or not at all.
        found = [each.labels for each in held]
        labels = np.array([found[index][row] for index, row in places], np.int64)  # type: ignore[index]
    return Rows(feeds, labels, len(places))


def _fixed_batch(dataset: Dataset) -> int | None:
    batched = batched_inputs(dataset.inputs)
    sizes = [i.shape[0] for i in dataset.inputs if i.shape and batched[i.name]]
    return next((size for size in sizes if isinstance(size, int)), None)
