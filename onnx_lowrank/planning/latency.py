"""How long candidates take beside their layer, and tables of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from onnx_lowrank.errors import PlanError
from onnx_lowrank.json_input import JsonError, check_json, read_json

_REMEDY = "make one with bench --save-latency"


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

    def times(self, factor: float) -> Timed:
        """Return a latency so many times as long."""
        return Timed(*(factor * value for value in self.to_list()))

    def to_list(self) -> list[float]:
        """Return the figures, ready for JSON."""
        return [self.seconds, self.ratio, self.low, self.high]

    @classmethod
    def from_list(cls, row: Any) -> Timed:
        """Read what `to_list` gave; raise ValueError or TypeError for anything else."""
        timed = cls(*map(float, row))
        # Where multiply-adds are minimised, they stand for the ratio, and there are no seconds.
        if not (0 <= timed.seconds < inf and 0 < timed.low <= timed.ratio <= timed.high < inf):
            raise ValueError(f"{row} is no latency with its ratio and interval")
        return timed


@dataclass(frozen=True, kw_only=True)
class SavedLatencies:
    """What a machine measured of a model's layers and their candidates, for use on another.

    Attributes
    ----------
    model : str
        Key of the model's structure and input shapes; values of weights do not count.
    name : str
        What the model was called.
    machine : mapping
        Processor, cores, instruction sets, system, versions.
    provider : str
        Name of the engine that ran the models.
    threads : int or None
        Threads of one run; None is the engine's own choice.
    batch : int
        Samples at once.
    input_shapes : mapping of str to tuple of int
        As given for inputs whose sizes the model leaves open.
    whole : Timed
        The whole original.
    assembled : tuple of (float, Timed)
        Whole models of many candidates: what the sum of the layers predicted, as a share of the
        original's latency, and what was measured.
    known : mapping of str to Timed
        Layers and candidates by key; a key tells structure and sizes.
    """

    model: str
    name: str
    machine: Mapping[str, Any]
    provider: str
    threads: int | None
    batch: int
    input_shapes: Mapping[str, tuple[int, ...]]
    whole: Timed
    assembled: tuple[tuple[float, Timed], ...]
    known: Mapping[str, Timed]

    FORMAT: ClassVar[int] = 1

    @property
    def scale(self) -> float:
        """What whole models save over what the sum of their layers saves: the median.

        Single layers are timed with the change of layout at their ends, which neighbours share.
        """
        saved = [(1 - timed.ratio, 1 - ratio) for ratio, timed in self.assembled if ratio < 1]
        return max(median(seen / told for seen, told in saved), 0.0) if saved else 1.0

    def forecast(self, ratio: float) -> Timed:
        """Return the latency of a whole model whose layers, scaled, add up to a share `ratio`.

        The interval reaches as far as any of the assembled models was off, their own intervals
        included.
        """
        off = 1.0
        for told, timed in self.assembled:
            expected = 1 - self.scale * (1 - told)
            if expected > 0:
                off = max(off, timed.high / expected, expected / timed.low)
        return Timed(self.whole.seconds * ratio, ratio, ratio / off, ratio * off)

    @property
    def origin(self) -> str:
        """The machine and its settings, in a clause."""
        versions = self.machine.get("versions", {})
        packages = "openvino" if self.provider == "openvino" else "onnxruntime"
        runtime = " ".join(f"{n} {v}" for n, v in versions.items() if n.startswith(packages))
        threads = "threads as the engine chooses"
        if self.threads is not None:
            threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        where = (self.machine["cpu"], runtime, self.provider, threads, f"batch {self.batch}")
        return ", ".join(str(part) for part in where if part)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "kind": "latency",
            "version": self.FORMAT,
            "model": self.model,
            "name": self.name,
            "machine": dict(self.machine),
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "input_shapes": {name: list(shape) for name, shape in self.input_shapes.items()},
            "whole": self.whole.to_list(),
            "assembled": [[ratio, timed.to_list()] for ratio, timed in self.assembled],
            "latencies": {key: timed.to_list() for key, timed in sorted(self.known.items())},
        }

    @classmethod
    def from_dict(cls, data: Any) -> SavedLatencies:
        """Read what `to_dict` gave; raise PlanError for anything else."""
        try:
            check_json(data, "latency")
        except JsonError as error:
            raise PlanError(f"not a table of latencies: {error}; {_REMEDY}") from None
        return cls._of(data)

    @classmethod
    def read(cls, path: Path) -> SavedLatencies:
        """Read a file of what `to_dict` gave; raise PlanError for anything else."""
        return cls._of(
            read_json(path, "latency", what="the latencies", remedy=_REMEDY, error=PlanError)
        )

    @classmethod
    def _of(cls, data: Any) -> SavedLatencies:
        threads = data["threads"]
        try:
            return cls(
                model=str(data["model"]),
                name=str(data["name"]),
                machine=data["machine"],
                provider=str(data["provider"]),
                threads=None if threads is None else int(threads),
                batch=int(data["batch"]),
                input_shapes={n: tuple(map(int, s)) for n, s in data["input_shapes"].items()},
                whole=Timed.from_list(data["whole"]),
                assembled=tuple((float(r), Timed.from_list(row)) for r, row in data["assembled"]),
                known={key: Timed.from_list(row) for key, row in data["latencies"].items()},
            )
        except ValueError as error:
            raise PlanError(f"not a table of latencies: {error}; {_REMEDY}") from None
