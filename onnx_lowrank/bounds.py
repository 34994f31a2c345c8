"""What a user gives: numbers in their range, and choices that there are, or an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from onnx_lowrank.errors import OnnxLowRankError

SQNR_CAP_DB = 300.0
"""Equal outputs have no finite signal-to-error ratio: every ratio is reported within this bound."""
# Below 0 dB the error is larger than the output, as is allowed to who asks for it.
SQNR_REMEDY = f"give dB from {-SQNR_CAP_DB:g} to {SQNR_CAP_DB:g}, such as 25"
MOST_SEED = 2**32 - 1  # what numpy, torch and scikit-learn all take
MOST_COUNT = 2**31 - 1  # what a C int holds
MOST_WORKERS = 1024  # threads or processes: more are a slip, and may bring the machine down
MOST_BATCH = 2**16  # samples at once: more do not fit into memory
MOST_SECONDS = 86_400.0  # a day
MOST_REPEATS = 100_000  # of loads or runs, each of which is kept


def out_of_range(
    value: object, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> bool:
    """Whether a value is anything but a finite number from `least` to `most`, beyond `above`.

    NaN is in no range, and an integer beyond all floats is not finite.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return True
    try:
        number = float(value)
    except OverflowError:
        return True
    return not (math.isfinite(number) and least <= number <= most and number > above)


def check_number(
    name: str,
    value: object,
    remedy: str,
    error: type[OnnxLowRankError],
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> None:
    """Raise an error for a number out of its range; None is no number, and passes.

    Parameters
    ----------
    name : str
        What the number is called.
    value : float or None
        The number.
    remedy : str
        What to give instead, such as ``"give 1 or more"``.
    error : type of OnnxLowRankError
        What is raised.
    least, most, above : float
        The range, as of `out_of_range`.
    """
    if value is not None and out_of_range(value, least=least, most=most, above=above):
        raise error(f"{name} is {shown(value)}; {remedy}")


def check_count(
    name: str, value: object, error: type[OnnxLowRankError], *, most: int = MOST_COUNT
) -> None:
    """Raise an error for anything but a whole number from 1 to `most`, or None."""
    if isinstance(value, float) and not value.is_integer():
        raise error(f"{name} is {shown(value)}; give a whole number")
    check_number(name, value, f"give a number from 1 to {most}", error, least=1, most=most)


def check_choice(
    name: str, chosen: object, error: type[OnnxLowRankError], known: Sequence[object]
) -> None:
    """Raise an error for a choice that is not among those known."""
    if chosen not in known:
        raise error(f"{name} has no choice '{chosen}'; take one of {', '.join(map(str, known))}")


def shown(value: object) -> str:
    """Return a number as a message shows it: short, however many digits it has."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return f"{float(value):g}"
        except OverflowError:
            return "beyond all floats"
    return f"{value!r}"[:40]
