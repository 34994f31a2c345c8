"""How large an array may be on this machine: checked before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from math import prod
from pathlib import Path

from onnx_lowrank.errors import DataError

# Of the memory, for one input at once: it is drawn or decoded, converted and stacked, so that about
# four copies live at the same time.
SHARE = 0.25
_UNKNOWN = 2**34  # bytes, where the system does not say how much memory it has
# Of the control group of this process, where it has a bound.
_GROUP_BOUND = Path("/sys/fs/cgroup/memory.max")


@cache
def largest_array() -> int:
    """Return the bytes that one array of inputs may take on this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        memory = _UNKNOWN
    with suppress(OSError, ValueError):  # no bound
        memory = min(memory, int(_GROUP_BOUND.read_text()))
    return int(memory * SHARE)


def check_size(shape: Sequence[int], itemsize: int, what: str, *, remedy: str) -> None:
    """Raise DataError where an array is larger than this machine can work on.

    Parameters
    ----------
    shape : sequence of int
        Its sizes, of any magnitude.
    itemsize : int
        Bytes of an element.
    what : str
        What to call it in the error.
    remedy : str
        What to do about it, in the imperative.
    """
    size, most = prod(shape) * itemsize, largest_array()
    if size > most:
        raise DataError(
            f"{what} would take {_amount(size)}, more than the {_amount(most)} that one array may "
            f"take on this machine; {remedy}"
        )


def _amount(size: int) -> str:
    if size >= 2**80:
        return "over 10^24 bytes"
    for power, unit in ((50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB")):
        if size >= 2**power:
            return f"{size / 2**power:.1f} {unit}"
    return f"{size} bytes"
