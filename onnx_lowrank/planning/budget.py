"""What a user allows a model to lose, and what it must gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from onnx_lowrank.bounds import SQNR_CAP_DB, SQNR_REMEDY, check_number
from onnx_lowrank.errors import PlanError

Objective = Literal["latency", "macs", "params"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bounds on a compressed model; None sets no bound.

    Attributes
    ----------
    max_drop : float or None
        Most points of accuracy to lose, from 0 to below 100; of top-1 agreement where there are no
        labels; of a user's score where one is given, 0 or more.
    min_sqnr_db : float or None
        Least signal-to-error ratio of every output, in dB, -300 to 300.
    min_speedup : float or None
        Least measured latency of the original over that of the result, 1 or more.
    macs, params : float or None
        Largest share of the original's multiply-adds and of its parameters, above 0, up to 1.
    size_mb : float or None
        Largest size of the file, in 10^6 bytes.
    score : str or callable or None
        A user's figure of merit, the higher the better, ``"module:callable"`` or a callable as of
        `onnx_lowrank.score.Score`: `max_drop` is then in its units.
    objective : {"latency", "macs", "params"}
        What is minimised within the bounds.

    Raises
    ------
    PlanError
        A bound is not finite or out of its range, or there is none.
    """

    max_drop: float | None = None
    min_sqnr_db: float | None = None
    min_speedup: float | None = None
    macs: float | None = None
    params: float | None = None
    size_mb: float | None = None
    score: str | Callable[..., float] | None = None
    objective: Objective = "latency"

    def __post_init__(self) -> None:
        drop: dict[str, float] = {"least": 0, "most": math.nextafter(100, 0)}
        drop_remedy = "give points from 0 to below 100"
        if self.score is not None:
            drop, drop_remedy = {"least": 0}, "give 0 or more, in the score's units"
        share = "give a share above 0 and up to 1"
        for name, remedy, bounds in (
            ("max_drop", drop_remedy, drop),
            ("min_sqnr_db", SQNR_REMEDY, {"least": -SQNR_CAP_DB, "most": SQNR_CAP_DB}),
            ("min_speedup", "give 1 or more, such as 2", {"least": 1}),
            ("macs", share, {"above": 0, "most": 1}),
            ("params", share, {"above": 0, "most": 1}),
            ("size_mb", "give more than 0", {"above": 0}),
        ):
            check_number(name, getattr(self, name), remedy, PlanError, **bounds)
        if self.objective not in get_args(Objective):
            raise PlanError(
                f"there is no objective '{self.objective}'; "
                f"choose one of {', '.join(get_args(Objective))}"
            )
        if not self.limits_quality and not self.has_target:
            raise PlanError(
                "the budget is empty; say what may be lost (max_drop, min_sqnr) "
                "or what must be gained (min_speedup, macs, params, size_mb)"
            )

    @property
    def limits_quality(self) -> bool:
        """Whether it bounds what may be lost."""
        return self.max_drop is not None or self.min_sqnr_db is not None

    @property
    def has_target(self) -> bool:
        """Whether it bounds what must be gained."""
        targets = (self.min_speedup, self.macs, self.params, self.size_mb)
        return any(target is not None for target in targets)
