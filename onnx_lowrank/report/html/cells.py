"""Figures as texts; what a run does not have, such as one that was killed, is said to be absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_lowrank.report import console

ABSENT = "–"
NOT_MEASURED = "not measured"


def form(value: float | None, template: str, absent: str = ABSENT) -> str:
    """Return a figure in a format such as ``"{:.3f}"``."""
    return absent if value is None else template.format(value)


def number(value: float | None, scale: float = 1.0) -> str:
    """Return a figure, times `scale`, with three digits."""
    return ABSENT if value is None else console.number(scale * value)


def percent(value: float | None, template: str = "{:.2f}") -> str:
    """Return a share in percent, without the sign."""
    return ABSENT if value is None else template.format(100 * value)


def times(value: float | None) -> str:
    """Return how many times more or fewer."""
    return "?" if value is None else f"{console.number(value)} ×"


def inverse(value: float | None) -> float | None:
    """Return one over a figure, such as the speed of a latency."""
    return 1 / value if value else None


def interval(ratio: Mapping[str, Any], between: str = "–") -> str:
    """Return a ratio with its interval."""
    if any(ratio[key] is None for key in ("ratio", "low", "high")):
        return ABSENT
    return f"{ratio['ratio']:.3f} ({ratio['low']:.3f}{between}{ratio['high']:.3f})"


def verdict(passed: bool | None, of: str) -> tuple[str, str, str]:
    """Return the entry on a verdict; not measured is not passed."""
    if passed is None:
        return "Verdict", NOT_MEASURED, "the run did not come to it"
    return (
        "Verdict",
        "passed" if passed else "failed",
        f"{'within' if passed else 'not within'} {of}",
    )


def yes(value: bool | None) -> str:
    """Return ``yes`` or ``no``."""
    return ABSENT if value is None else "yes" if value else "no"
