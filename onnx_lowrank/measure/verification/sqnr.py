"""The one definition of a signal-to-error ratio."""

from __future__ import annotations

import math

from onnx_lowrank.bounds import SQNR_CAP_DB


def sqnr_of(signal: float, error: float) -> float:
    """Return a signal over an error, sums of squares, in dB, capped by `SQNR_CAP_DB`.

    NaN where a sum is not finite.
    """
    if not (math.isfinite(signal) and math.isfinite(error)):
        return math.nan
    if error == 0:
        return SQNR_CAP_DB
    if signal == 0:
        return -SQNR_CAP_DB
    ratio = 10 * (math.log10(signal) - math.log10(error))
    return min(max(ratio, -SQNR_CAP_DB), SQNR_CAP_DB)
