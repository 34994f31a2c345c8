from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from onnx_lowrank.data import open_dataset
from onnx_lowrank.data.split import RUN, fewest_samples, split
from onnx_lowrank.runtime import TensorInfo

INPUTS = (TensorInfo("x", "tensor(float)", ("batch", 1)),)


def places_of(source: object, shares: tuple[float, ...], limit: int | None) -> list[list[int]]:
    parts = split(open_dataset(source, INPUTS, limit=limit, batch=3), shares)
    found = []
    for part in parts:
        batches = [batch.feeds["x"].ravel() for batch in part]
        found.append([int(v) for v in np.concatenate(batches)])
        assert part.samples in (None, len(found[-1]))
    return found


def places(count: int, shares: tuple[float, ...], *, limit: int | None = None) -> list[list[int]]:
    """Parts of feeds, whose number is not known ahead."""
    feeds = [{"x": np.full((1, 1), place, np.float32)} for place in range(count)]
    return places_of(feeds, shares, limit)


@pytest.mark.parametrize("count", [9, 79, 80, 200, 1000])
def test_every_sample_is_in_exactly_one_part(count: int) -> None:
    parts = places(count, (0.5, 0.3, 0.2))
    assert Counter(chain.from_iterable(parts)) == Counter(range(count))


def test_parts_have_their_shares_in_every_stretch() -> None:
    first, second = places(79, (0.4, 0.6))
    for start in range(0, 60, 20):
        inside = sum(start <= place < start + 20 for place in first)
        # Multiples of the golden section: the discrepancy of n points is below 3 log(n) / n.
        assert abs(inside - 8) <= 3
    assert len(first) + len(second) == 79


@pytest.mark.parametrize(("count", "run"), [(160, RUN), (80, RUN), (60, 6), (20, 2), (9, 1)])
def test_neighbours_stay_together(tmp_path: Path, count: int, run: int) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.arange(count, dtype=np.float32)[:, None])
    for part in places_of(path, (0.5, 0.5), None):
        runs = Counter(place // run for place in part)
        assert set(runs.values()) == {run}


def test_the_limit_holds_for_all_parts_together() -> None:
    assert sorted(chain.from_iterable(places(100, (1, 1), limit=20))) == list(range(20))


@pytest.mark.parametrize("shares", [(0.3, 0.35, 0.35), (0.45, 0.55), (1,), (0.9, 0.02, 0.08)])
def test_the_fewest_samples_leave_no_part_empty(shares: tuple[float, ...]) -> None:
    def empty(count: int) -> bool:
        feeds = [{"x": np.zeros((1, 1), np.float32)} for _ in range(count)]
        return not all(list(part.source) for part in split(open_dataset(feeds, INPUTS), shares))

    fewest = fewest_samples(shares)
    assert not empty(fewest)
    assert fewest == 1 or empty(fewest - 1)
