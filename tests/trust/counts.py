"""How much is tried, and what became of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

SCALE = float(os.environ.get("ONNX_LOWRANK_TRUST_SCALE", "1"))
FAULTS = ("wrong", "traceback", "signal", "hang", "half-written", "exit", "control", "process")
REASONS = 5  # of refusals, that are shown


def scaled(count: int) -> int:
    """Return how many to try where 1 stands for the bounded run of every change."""
    return max(1, round(count * SCALE))


def faults(outcomes: Iterable[tuple[Any, str]], folder: Path) -> str:
    """Return the outcomes that must not be, one line for each kind, and keep a model of each.

    Parameters
    ----------
    outcomes : iterable of (Job, str)
        What was tried and what became of it.
    folder : path
        Where the first model of each kind is written.
    """
    kinds: dict[str, list[Any]] = {}
    for item, outcome in outcomes:
        if outcome.startswith(FAULTS):
            kinds.setdefault(outcome, []).append(item)
    lines = []
    for kind, items in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
        kept = folder / f"{len(lines)}.onnx"
        kept.write_bytes(items[0].data)
        lines.append(f"{len(items)} x {kind} [{items[0].name}, {items[0].plan}, {kept}]")
    return "\n".join(lines)


def summary(outcomes: Iterable[str]) -> dict[str, int]:
    """Count outcomes by what stands before the colon, and refusals by their reason as well.

    Returns
    -------
    dict of str to int
        ``tried``, each outcome, and ``refused: REASON`` of the most frequent reasons.
    """
    found = list(outcomes)
    kinds = Counter(outcome.split(":")[0] for outcome in found)
    reasons = Counter(outcome for outcome in found if outcome.startswith("refused: "))
    return {
        "tried": len(found),
        **dict(kinds.most_common()),
        **dict(reasons.most_common(REASONS)),
    }


Record = Callable[[str, Mapping[str, int]], None]
