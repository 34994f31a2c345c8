"""What is opened by options is what `open_dataset` and `random_dataset` open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_lowrank.data import DataOptions, Dataset, open_dataset, random_dataset
from onnx_lowrank.data.random import RANDOM_SAMPLES
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

INPUTS = [TensorInfo("x", "tensor(float)", ("N", 2, "W"))]
SHAPES = {"x": (4, 2, 3)}
X = np.arange(60, dtype=np.float32).reshape(10, 2, 3)


def values(dataset: Dataset) -> list[tuple[bytes, object]]:
    return [(b.feeds["x"].tobytes(), None if b.labels is None else b.labels) for b in dataset]


def test_a_source_is_opened_with_every_option() -> None:
    feeds = [({"x": X}, np.arange(10))]
    options = DataOptions(data=feeds, labels_from="none", limit=6, batch=3)
    expected = open_dataset(feeds, INPUTS, labels_from="none", limit=6, batch=3)
    assert values(options.open(INPUTS)) == values(expected)
    assert [b.samples for b in options.open(INPUTS)] == [3, 3]
    # A shape that fixes the batch decides over the batch that is asked for.
    assert [b.samples for b in replace(options, input_shapes=SHAPES).open(INPUTS)] == [4, 2]
    # A source is read where there is one, random samples or not.
    assert values(options.open(INPUTS, random=True)) == values(expected)


def test_without_a_source_samples_are_random_where_that_is_wanted() -> None:
    options = DataOptions(input_shapes=SHAPES, seed=3)
    expected = random_dataset(INPUTS, count=RANDOM_SAMPLES, seed=3, input_shapes=SHAPES)
    assert values(options.open(INPUTS, random=True)) == values(expected)
    assert sum(b.samples for b in replace(options, limit=5).open(INPUTS, random=True)) == 5
    with pytest.raises(DataError, match="--input-shape"):
        DataOptions().open(INPUTS, random=True)
    with pytest.raises(DataError):
        options.open(INPUTS)
    with pytest.raises(DataError, match="has no input 'y'"):
        DataOptions(data=[{"x": X}], input_shapes={"y": (1,)}).open(INPUTS)
