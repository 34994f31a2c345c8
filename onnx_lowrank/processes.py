"""What this process starts, and what it lets libraries print."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes that never see SIGINT, which a terminal sends to all of a command's.

    Each would answer it with a traceback of its own, in the middle of an import too. This process
    gets one that comes meanwhile at the end, and then joblib ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    # Started within, either would lift the mask.
    resource_tracker.ensure_running()
    loky_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def without_stdout() -> Iterator[None]:
    """Drop what libraries print on the process's stdout, as C programs do."""
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    _flush()
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """Write out what waits in Python's and in C's buffers of stdout."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).fflush(None)
