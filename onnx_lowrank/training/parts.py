"""Where to cut a graph whose tensors are computed a second time for the gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

# Cuts that save less are not worth the time.
LEAST = 1 / 3
# Gradients of a node's output and input, and the copies that a Conv makes of both.
WORK = 2


def cut(saved: Sequence[int], live: Sequence[int]) -> list[int]:
    """Return where parts of a graph begin, and its end, so that gradients take least memory.

    What is kept from the forward pass to the backward one is alive between two parts; within one,
    everything is, while its gradients are computed. Parts of equal size between cuts of equal size
    make that 2 sqrt(n) instead of n (Chen et al. 2016); here the least of the sum is searched for,
    by dynamic programming under several bounds on the largest part.

    Parameters
    ----------
    saved : sequence of int
        Bytes that each node keeps for its gradients.
    live : sequence of int
        Bytes that later nodes read, after each node.

    Returns
    -------
    list of int
        ``[0, ..., n]``; ``[0, n]`` where no cuts save a third, as with large nodes in front: their
        gradients come last, when nothing else is kept any more.
    """
    count = len(saved)
    work = [WORK * (a + b) for a, b in itertools.pairwise([0, *live])]
    whole = peak_of(saved, work)
    best: tuple[float, list[int]] = (whole * (1 - LEAST), [0, count])
    for parts in range(2, 2 * math.isqrt(count) + 1):
        bound = max(sum(saved) / parts, *saved)
        costs, starts = [0], [0]
        for end in range(1, count + 1):
            options = []
            start, size = end, 0
            while start > 0 and size + saved[start - 1] <= bound:
                start -= 1
                size += saved[start]
                options.append((costs[start] + (live[start - 1] if start else 0), start))
            cost, start = min(options)
            costs.append(cost)
            starts.append(start)
        cuts = [count]
        while cuts[0]:
            cuts.insert(0, starts[cuts[0]])
        pieces = list(itertools.pairwise(cuts))
        largest = max(peak_of(saved[a:b], work[a:b]) for a, b in pieces)
        best = min(best, (costs[count] + largest, cuts))
    return best[1]


def peak_of(saved: Sequence[int], work: Sequence[int]) -> int:
    """Return the most that gradients of nodes take: those of a node after the nodes behind it."""
    kept = itertools.accumulate(saved)
    return max((a + b for a, b in zip(kept, work, strict=True)), default=0)
