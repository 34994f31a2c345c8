"""What `profile` measured, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_lowrank.runtime import Provider
from onnx_lowrank.runtime.machine import Noise
from onnx_lowrank.runtime.peak import Peak
from onnx_lowrank.runtime.profile import Executed
from onnx_lowrank.runtime.statistics import Seconds

UNATTRIBUTED = "(unattributed)"


@dataclass(frozen=True)
class Row:
    """The time of one layer, or of one node that is no layer.

    Attributes
    ----------
    name : str
        The layer's name, as `inspect` gives it, or the node's.
    op : str
        Op type of that node in the model.
    layer : bool
        Whether it is a Conv or a fully connected layer, with what was fused into it, what was made
        of it and what only bends its output.
    seconds : ndarray, shape (runs,), float64
        Its time in each run.
    share : float
        Part of the time of all nodes.
    macs : int or None
        Multiply-adds of one run, all samples; None where it is no layer.
    nodes : tuple of Executed
        What onnxruntime executed for it.
    """

    name: str
    op: str
    layer: bool
    seconds: Seconds
    share: float
    macs: int | None
    nodes: tuple[Executed, ...]

    @property
    def mean(self) -> float:
        """Mean time of a run, in seconds."""
        return float(self.seconds.mean())

    @property
    def sd(self) -> float:
        """Standard deviation over the runs, in seconds."""
        return float(self.seconds.std(ddof=1))

    @property
    def gflops(self) -> float | None:
        """Achieved GFLOP/s, two operations for a multiply-add; None where it is no layer."""
        return 2 * self.macs / self.mean / 1e9 if self.macs and self.mean else None

    def to_dict(self, peak: Peak) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        gflops = self.gflops
        return {
            "name": self.name,
            "op": self.op,
            "layer": self.layer,
            "mean_ms": 1e3 * self.mean,
            "sd_ms": 1e3 * self.sd,
            "share": self.share,
            "macs": self.macs,
            "gflops": gflops,
            "peak_share": None if gflops is None else gflops / peak.gflops,
            "nodes": [
                {
                    "name": node.name,
                    "op": node.op,
                    "provider": node.provider,
                    "mean_ms": 1e3 * float(node.seconds.mean()),
                }
                for node in self.nodes
            ],
        }


@dataclass(frozen=True)
class ModelProfile:
    """The profile of one model.

    Attributes
    ----------
    name : str
        The model's file or graph.
    rows : tuple of Row
        In graph order.
    wall : ndarray, shape (runs,), float64
        Seconds of each run by the clock, in a session without profiler.
    profiled_wall : ndarray, shape (runs,), float64
        Seconds of each run in the session with profiler.
    """

    name: str
    rows: tuple[Row, ...]
    wall: Seconds
    profiled_wall: Seconds

    @property
    def total(self) -> Seconds:
        """Time of all nodes in each run."""
        return np.asarray(sum(row.seconds for row in self.rows), dtype=np.float64)

    @property
    def attributed(self) -> float:
        """Share of the time of all nodes that is attributed to a row."""
        return float(sum(row.share for row in self.rows if row.name != UNATTRIBUTED))

    @property
    def sum_over_wall(self) -> float:
        """Median time of all nodes over the median time by the clock, without profiler.

        Above 1 by what the profiler costs, which shows where nodes take microseconds.
        """
        return float(np.median(self.total)) / self.wall_median

    @property
    def wall_median(self) -> float:
        """Median seconds of a run by the clock, without profiler."""
        return float(np.median(self.wall))

    def row(self, name: str) -> Row | None:
        """Return the row of that name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    def to_dict(self, peak: Peak) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "name": self.name,
            "rows": [row.to_dict(peak) for row in self.rows],
            "total_mean_ms": 1e3 * float(self.total.mean()),
            "total_sd_ms": 1e3 * float(self.total.std(ddof=1)),
            "wall_median_ms": 1e3 * self.wall_median,
            "profiled_wall_median_ms": 1e3 * float(np.median(self.profiled_wall)),
            "attributed": self.attributed,
            "sum_over_wall": self.sum_over_wall,
        }


@dataclass(frozen=True)
class ProfileReport:
    """What `profile` measured.

    Attributes
    ----------
    model : ModelProfile
        The model.
    compared : ModelProfile or None
        The model made from it; nodes called ``<layer>/...`` are in the row of that layer.
    provider, threads, batch, runs
        As asked for; threads None is onnxruntime's own choice.
    peak : Peak
        What the machine can do, and how that was measured.
    machine : dict
        Processor, system, versions.
    noise : Noise
        Signs of other work on the machine.
    notes : tuple of str
        Sentences on what the figures do not say.
    session : dict of str to str
        Settings of the provider, as of `onnx_lowrank.runtime.Session`.
    """

    model: ModelProfile
    compared: ModelProfile | None
    provider: Provider
    threads: int | None
    batch: int
    runs: int
    peak: Peak
    machine: dict[str, Any]
    noise: Noise
    notes: tuple[str, ...]
    session: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "version": 1,
            "model": self.model.to_dict(self.peak),
            "compared": self.compared.to_dict(self.peak) if self.compared else None,
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "runs": self.runs,
            "peak": self.peak.to_dict(),
            "machine": self.machine,
            "noise": self.noise.to_dict(),
            "notes": list(self.notes),
            "session": dict(self.session),
        }
