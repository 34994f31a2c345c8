"""Calls in processes of their own: one that dies or hangs is an outcome, not the end of a run."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as Expired
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

MEMORY = 12 << 30  # bytes of address space; torch alone maps several GiB
SECONDS = 60.0  # for one call; what needs longer hangs
# Where tests run side by side, each has a core of its own.
WORKERS = 1 if "PYTEST_XDIST_WORKER" in os.environ else os.cpu_count() or 1
CALLS = 400  # of one process, in which a library may grow

T = TypeVar("T")


def each(
    function: Callable[[T], str],
    items: Iterable[T],
    *,
    seconds: float = SECONDS,
    workers: int | None = None,
) -> Iterator[tuple[T, str]]:
    """Call `function` on each item and yield the item and what became of it.

    Parameters
    ----------
    function : callable
        Of a module's top level; returns an outcome in one line.
    items : iterable
        What can be pickled; one after the other is taken as processes are free.
    seconds : float
        After these a call is ended, and its outcome is ``"hang"``.
    workers : int, optional
        Processes at once.

    Yields
    ------
    tuple
        The item and its outcome, in order: what `function` returned, ``"hang"``, ``"signal N"``
        or ``"traceback: ..."``.
    """
    count = workers or WORKERS
    with ProcessPool(
        max_workers=count,
        max_tasks=CALLS,
        initializer=_limit,
        initargs=(sys.path,),
        context=multiprocessing.get_context("spawn"),
    ) as pool:
        waiting: list[tuple[T, Any]] = []
        for item in items:
            waiting.append((item, pool.schedule(function, args=[item], timeout=seconds)))
            if len(waiting) >= 4 * count:
                yield _outcome(*waiting.pop(0))
        for pair in waiting:
            yield _outcome(*pair)


def _limit(path: list[str]) -> None:
    sys.path[:] = path
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _outcome(item: T, future: Any) -> tuple[T, str]:
    try:
        return item, str(future.result())
    except Expired:
        return item, "hang"
    except ProcessExpired as error:
        return item, f"signal {-error.exitcode}" if error.exitcode < 0 else "process ended"
    except Exception as error:
        return item, f"traceback: {type(error).__name__}: {error}"
