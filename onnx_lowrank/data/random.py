"""Random inputs, for comparing two models without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.data.dataset import Dataset, Sample, batched_inputs
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo, fix_shapes

RANDOM_SAMPLES = 8  # enough to see a wrong rewrite; what it loses on real inputs takes data


def random_dataset(
    inputs: Sequence[TensorInfo],
    *,
    count: int,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
) -> Dataset:
    """Return reproducible random samples.

    Floats are standard normal, uint8 over its range, booleans and other integers 0 or 1.

    Parameters
    ----------
    inputs : sequence of TensorInfo
        The model's inputs.
    count : int
        Number of samples.
    seed : int
        Seed; a sample depends on it and on its place only, not on `batch`.
    input_shapes : mapping of str to sequence of int, optional
        Input name -> full shape, for sizes that the model leaves open. The batch axis may be left
        open.
    batch : int, optional
        Samples per batch, as of `Dataset`.

    Raises
    ------
    DataError
        An input is of strings or of no tensor type, a size is unknown, or an array would be larger
        than this machine can work on.
    """
    shapes = dict(input_shapes or {})
    known = fix_shapes(inputs, shapes)
    batched = batched_inputs(known)
    for info in known:
        if info.dtype is None or info.dtype.kind == "U":
            raise DataError(
                f"no random data can be made for input '{info.name}' of {info.type}; give data"
            )
        open_sizes = info.shape is None or any(
            not isinstance(d, int) for d in info.shape[1 if batched[info.name] else 0 :]
        )
        if open_sizes:
            raise DataError(
                f"input '{info.name}' {info.describe_shape()} has sizes that the model leaves "
                f"open; give them, e.g. --input-shape {info.name}=1,3,224,224"
            )
    return Dataset(_RandomSource(known, batched, count, seed), known, batch=batch, limit=count)


class _RandomSource:
    def __init__(
        self, inputs: Sequence[TensorInfo], batched: Mapping[str, bool], count: int, seed: int
    ) -> None:
        self.skipped: list[str] = []
        self._inputs = inputs
        self._batched = batched
        self._count = count
        self._seed = seed

    @property
    def samples(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        fixed = np.random.default_rng(self._seed)
        constants = {i.name: _draw(i, fixed) for i in self._inputs if not self._batched[i.name]}
        for number in range(self._count):
            rng = np.random.default_rng((self._seed, number))
            feeds = {i.name: _draw(i, rng, skip=1) for i in self._inputs if self._batched[i.name]}
            yield Sample({**feeds, **constants}, None, f"random sample {number}")


def _draw(info: TensorInfo, rng: np.random.Generator, skip: int = 0) -> NDArray[Any]:
    shape = [d for d in (info.shape or ())[skip:] if isinstance(d, int)]
    dtype = info.dtype
    if dtype is None or dtype.kind == "f":
        return rng.standard_normal(shape)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape)
    return rng.integers(0, 2, shape)
