"""Cuts of a graph: the least memory there is, by trying all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnx_lowrank.training.parts import cut


def memory(saved: list[int], live: list[int], cuts: tuple[int, ...]) -> int:
    ends = [0, *cuts, len(saved)]
    gradients = [2 * (a + b) for a, b in itertools.pairwise([0, *live])]
    parts = [
        max((sum(saved[a : k + 1]) + gradients[k] for k in range(a, b)), default=0)
        for a, b in itertools.pairwise(ends)
    ]
    return sum(live[place - 1] for place in cuts) + max(parts)


@pytest.mark.parametrize("count", [36, 64, 100])
def test_equal_nodes_are_cut_by_the_square_root(count: int) -> None:
    starts = cut([1] * count, [1] * count)
    # Gradients of one node take 4 more.
    assert memory([1] * count, [1] * count, tuple(starts[1:-1])) == 2 * count**0.5 - 1 + 4


@pytest.mark.parametrize("seed", range(20))
def test_little_more_than_the_least_is_taken(seed: int) -> None:
    rng = np.random.default_rng(seed)
    saved, live = rng.integers(0, 50, (2, 10)).tolist()
    places = range(1, 10)
    least = min(
        memory(saved, live, cuts)
        for size in range(10)
        for cuts in itertools.combinations(places, size)
    )
    starts = cut(saved, live)
    assert starts[0] == 0
    assert starts[-1] == 10
    found = memory(saved, live, tuple(starts[1:-1]))
    # Bounds between two that are tried may hold a better cut: of the largest part, no more than
    # twice as large as needed. Where that saves less than a third, there is no cut.
    assert least <= found
    assert found <= 2 * least or (len(starts) == 2 and found <= 3 * least)


def test_what_saves_little_is_not_cut() -> None:
    assert cut([0, 90, 1], [50, 60, 0]) == [0, 3]
    # MiB of a network with a large LRN in front, whose own gradients take the most.
    saved = [0, 36, 73, 60, 9, 6, 18, 14, 2, 3, 0, 2, 0, 2, 0, 0]
    live = [36, 36, 36, 9, 6, 6, 6, 2, 3, 3, 2, 2, 2, 0, 0, 0]
    assert cut(saved, live) == [0, 16]
    assert cut([], []) == [0, 0]
    assert cut([5], [5]) == [0, 1]
