"""Every sample once an epoch, in an order of the seed, with its label."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.runtime import TensorInfo
from onnx_lowrank.training import batches
from onnx_lowrank.training.batches import shuffled, steps_of, whole_batches

COUNT = 23


def dataset(batch: int | str = "N", *, labelled: bool = True, parts: int = 1) -> Dataset:
    values = np.arange(COUNT, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    feeds = [{"x": each} for each in np.array_split(values, parts)]
    if labelled:
        for feed in feeds:
            feed["labels"] = feed["x"][:, 0].astype(np.int64)
    return open_dataset(feeds, [TensorInfo("x", "tensor(float)", (batch, 2))], batch=4)


def epoch(data: Dataset, batch: int, seed: int = 0) -> list[list[int]]:
    steps = []
    for step in shuffled(data, batch, np.random.default_rng(seed)):
        for rows in step:
            assert rows.feeds["x"].shape == (rows.samples, 2)
            if rows.labels is not None:
                np.testing.assert_array_equal(rows.labels, rows.feeds["x"][:, 0])
        steps.append([int(value) for rows in step for value in rows.feeds["x"][:, 0]])
    return steps


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("batch", [1, 5, 23, 40])
def test_every_sample_once(batch: int, labelled: bool) -> None:
    steps = epoch(dataset(labelled=labelled), batch)
    assert sorted(chain(*steps)) == list(range(COUNT))
    assert {len(step) for step in steps[:-1]} <= {batch}
    assert len(steps) == steps_of(dataset(), batch) == -(-COUNT // batch)
    assert list(chain(*steps)) != list(range(COUNT))


def test_the_seed_orders_them_and_the_feeds_do_not() -> None:
    first = epoch(dataset(), 5, seed=1)
    assert epoch(dataset(parts=7), 5, seed=1) == first
    assert epoch(dataset(), 5, seed=2) != first


def test_a_fixed_batch_is_run_several_times_a_step() -> None:
    data = dataset(4)
    steps = list(shuffled(data, 10, np.random.default_rng(0)))
    # 10, 10 and 3 samples in runs of 4: what does not fill one is left out.
    assert [[rows.samples for rows in step] for step in steps] == [[4, 4], [4, 4]]
    assert [rows.samples for rows in whole_batches(data)] == [4] * 5
    assert [rows.samples for rows in whole_batches(dataset())] == [4] * 5 + [3]


def test_what_is_beyond_the_buffer_is_shuffled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BUFFER", 8 * 8)  # two batches of 4 samples of 8 bytes
    steps = epoch(dataset(), 4)
    assert sorted(chain(*steps[:2])) == list(range(8))
    assert sorted(chain(*steps)) == list(range(COUNT))
