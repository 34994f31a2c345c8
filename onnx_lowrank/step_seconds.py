"""Where the time of a long run goes: seconds of its steps, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StepSeconds:
    """Adds up the seconds of named steps; time in a step within another counts for that one alone.

    Parameters
    ----------
    now : callable
        Gives the seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._start = self._since = now()
        self._open: list[str] = []
        self._seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time until the context ends as that of a step."""
        self._count()
        self._seconds.setdefault(name, 0.0)
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def to_dict(self) -> dict[str, float]:
        """Return the seconds of every step, in the order in which they began, and the total."""
        self._count()
        return {**self._seconds, "total": self._now() - self._start}

    def _count(self) -> None:
        now = self._now()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now
