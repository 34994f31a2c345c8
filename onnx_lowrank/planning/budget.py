"""What a user allows a model to lose, and what it must gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from onnx_lowrank.bounds import SQNR_CAP_DB, SQNR_REMEDY, check_number
from onnx_lowrank.errors import PlanError

if TYPE_CHECKING:  # the command line reads this module before it knows what it is asked for
    from onnx_lowrank.planning.cost import Cost

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
        `onnx_lowrank.measure.score.Score`: `max_drop` is then in its units.
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

    def check_countable(self, uncounted: Mapping[str, Sequence[str]], *, open_sizes: bool) -> None:
        """Raise PlanError where a bound cannot be checked.

        Parameters
        ----------
        uncounted : mapping of str to sequence of str
            Names of the layers whose "macs" and "params" are unknown.
        open_sizes : bool
            Whether there are inputs of unknown size, of which a user may know more.
        """
        other = "--min-speedup" if uncounted["params"] else "--params or --min-speedup"
        shapes = "give --input-shape, or " if open_sizes else ""
        for bound, what, remedy in (
            ("macs", "multiply-adds", f"{shapes}bound something else, such as {other}"),
            ("params", "number of weights", "bound something else, such as --size-mb"),
        ):
            names = uncounted[bound]
            if getattr(self, bound) is not None and names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise PlanError(
                    f"a bound on {bound} cannot be checked: the {what} of layer '{names[0]}'{more} "
                    f"cannot be known; {remedy}"
                )

    def missed(self, total: Cost, file_bytes: int) -> tuple[str, ...]:
        """Return which bounds on operations, parameters and the file a model misses.

        Parameters
        ----------
        total : Cost
            Of all layers, before and after.
        file_bytes : int
            Of the model as it is written.
        """
        found = []
        for bound, what, old, new in (
            ("macs", "multiply-adds", total.macs, total.macs_new),
            ("params", "parameters", total.params, total.params_new),
        ):
            share = getattr(self, bound)
            if share is None:
                continue
            if old is None or new is None:
                found.append(f"its {what} are unknown: a bound of {share:g} is not checked")
            elif new > share * old:
                found.append(f"it has {new / old:.4f} of the {what}, not {share:g}")
        if self.size_mb is not None and file_bytes > 1e6 * self.size_mb:
            found.append(f"its file has {file_bytes / 1e6:.6g} MB, not {self.size_mb:g}")
        return tuple(found)

    @property
    def limits_quality(self) -> bool:
        """Whether it bounds what may be lost."""
        return self.max_drop is not None or self.min_sqnr_db is not None

    @property
    def has_target(self) -> bool:
        """Whether it bounds what must be gained."""
        targets = (self.min_speedup, self.macs, self.params, self.size_mb)
        return any(target is not None for target in targets)
