"""How long candidates take beside their layer: measured once, kept by structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_lowrank.errors import PlanError


@dataclass(frozen=True)
class Timed:
    """A measured latency, beside that of the layer it would replace.

    Attributes
    ----------
    seconds : float
        Median time of one run of the original layer, times `ratio`.
    ratio, low, high : float
        Latency over the original layer's, and the interval that holds it.
    """

    seconds: float
    ratio: float
    low: float
    high: float

    @property
    def pays(self) -> bool:
        """Whether the candidate is faster beyond doubt."""
        return self.high < 1


Timer = Callable[[Sequence[str]], Mapping[str, Timed]]
"""Times the structures of these keys, all beside the dense layer of the first."""


class LatencyTable:
    """Measured latencies by key; a key tells structure, sizes, threads, provider and versions.

    Parameters
    ----------
    known : mapping, optional
        What is known already.
    """

    FORMAT = 1

    def __init__(self, known: Mapping[str, Timed] | None = None) -> None:
        self.known = dict(known or {})

    def measured(self, keys: Sequence[str], timer: Timer) -> list[Timed]:
        """Return the latencies of `keys`, the dense layer first; the missing ones are timed now.

        All of a layer are timed together where any is missing: only ratios of one interleaved run
        count.
        """
        missing = [key for key in dict.fromkeys(keys[1:]) if key not in self.known]
        if missing or keys[0] not in self.known:
            self.known.update(timer([keys[0], *missing]))
        return [self.known[key] for key in keys]

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-ready data."""
        entries = {
            key: [timed.seconds, timed.ratio, timed.low, timed.high]
            for key, timed in sorted(self.known.items())
        }
        return {"version": self.FORMAT, "latencies": entries}

    @classmethod
    def from_dict(cls, data: Any) -> LatencyTable:
        """Read what `to_dict` gave; raise PlanError for anything else."""
        try:
            if data["version"] != cls.FORMAT:
                raise ValueError(f"version {data['version']} is not {cls.FORMAT}")
            return cls({key: Timed(*map(float, row)) for key, row in data["latencies"].items()})
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PlanError(
                f"not a table of latencies ({error}); make one with bench --save-latency"
            ) from None
