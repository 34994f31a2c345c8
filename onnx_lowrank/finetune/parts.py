"""Where to cut a graph whose tensors are computed a second time for the gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


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
        ``[0, ..., n]``; ``[0, n]`` where no cut saves any.
    """
    count, total = len(saved), sum(saved)
    best: tuple[float, list[int]] = (total, [0, count])
    for parts in range(2, 2 * math.isqrt(count) + 1):
        bound = max(total / parts, *saved)
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
        largest = max(sum(saved[a:b]) for a, b in itertools.pairwise(cuts))
        best = min(best, (costs[count] + largest, cuts))
    return best[1]
