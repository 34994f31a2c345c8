"""The machine that a measurement ran on, and whether something else ran on it meanwhile."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_lowrank.runtime.doctor import available_cores, diagnose

# What a quiet machine stays under.
MAX_SPREAD = 0.05
MAX_DRIFT = 0.05
MAX_LOAD_PER_CORE = 0.75
MAX_SWITCHES = 20.0
MAX_STOLEN = 0.02
MIN_CPU = 0.95


def describe_machine() -> dict[str, Any]:
    """Return processor, system and versions as plain data, ready for JSON."""
    found = diagnose()
    return {
        "cpu": found.cpu,
        "cores": found.cores,
        "instruction_sets": list(found.instruction_sets or ()),
        "platform": found.platform,
        "kernel": platform.release(),
        "python": found.python,
        "versions": {name: version for name, version in found.versions.items() if version},
        "custom_ops": found.custom_ops is not None,
    }


@dataclass(frozen=True)
class Noise:
    """Signs of other work on the machine during a measurement; None where the system does not tell.

    Attributes
    ----------
    cores : int
        Cores that this process may use.
    load_before : float or None
        Load average of the last minute before the measurement began.
    switches_per_second : float or None
        How often the system took the processor away from this process.
    stolen : float or None
        Share of the processors' time that the host of a virtual machine gave to others.
    cpu_share : float or None
        Processor time of this process over wall time: 1 for one busy thread. None where runs do
        not keep exactly one processor busy.
    block_spread : float
        Largest distance between the quartiles of a contender's blocks, relative to the median.
    drift : float
        Largest relative difference between the medians of a contender's first and second half.
    """

    cores: int
    load_before: float | None
    switches_per_second: float | None
    stolen: float | None
    cpu_share: float | None
    block_spread: float
    drift: float

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the machine counts as noisy, one sentence each; empty if it was quiet."""
        found = []
        if self.load_before is not None and self.load_before > MAX_LOAD_PER_CORE * self.cores:
            found.append(f"the load average was {self.load_before:.1f} before it began")
        if self.block_spread > MAX_SPREAD:
            found.append(f"repeated measurements differ by {self.block_spread:.1%}")
        if self.drift > MAX_DRIFT:
            found.append(f"the second half differs from the first by {self.drift:.1%}")
        if self.switches_per_second is not None and self.switches_per_second > MAX_SWITCHES:
            found.append(f"it was interrupted {self.switches_per_second:.0f} times a second")
        if self.stolen is not None and self.stolen > MAX_STOLEN:
            found.append(f"the host took {self.stolen:.1%} of the processor time")
        if self.cpu_share is not None and self.cpu_share < MIN_CPU:
            found.append(f"the process had a processor for {self.cpu_share:.1%} of the time only")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"noisy": bool(self.reasons), "reasons": list(self.reasons), **asdict(self)}


class NoiseMeter:
    """Counts what the system did to this process while it was timed.

    Parameters
    ----------
    one_thread : bool
        Whether runs keep exactly one processor busy, so that processor time should equal wall time.
    """

    def __init__(self, *, one_thread: bool) -> None:
        self._one_thread = one_thread
        self._load = _load_average()
        self._wall = self._cpu = 0.0
        self._switches: int | None = 0
        self._ticks = [0, 0]
        self._started: tuple[float, float, int | None, tuple[int, int] | None] | None = None

    def start(self) -> None:
        """Begin, or go on, counting."""
        self._started = (time.perf_counter(), time.process_time(), _switches(), _stolen_ticks())

    def stop(self) -> None:
        """Pause, at the end of a timed stretch."""
        assert self._started is not None
        wall, cpu, switches, ticks = self._started
        self._wall += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu
        now, now_ticks = _switches(), _stolen_ticks()
        if switches is None or now is None or self._switches is None:
            self._switches = None
        else:
            self._switches += now - switches
        if ticks is not None and now_ticks is not None:
            self._ticks = [
                self._ticks[0] + now_ticks[0] - ticks[0],
                self._ticks[1] + now_ticks[1] - ticks[1],
            ]

    def result(self, *, block_spread: float, drift: float) -> Noise:
        """Return what was counted, with the figures of the timings themselves."""
        wall = self._wall or 1.0
        stolen, total = self._ticks
        return Noise(
            cores=available_cores(),
            load_before=self._load,
            switches_per_second=None if self._switches is None else self._switches / wall,
            stolen=stolen / total if total else None,
            cpu_share=self._cpu / wall if self._one_thread else None,
            block_spread=block_spread,
            drift=drift,
        )


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _switches() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _stolen_ticks(path: Path = Path("/proc/stat")) -> tuple[int, int] | None:
    """Return the stolen and the total processor time since boot, in ticks of the system."""
    try:
        fields: Sequence[str] = path.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    # cpu user nice system idle iowait irq softirq steal; then guests, who are in user and nice.
    values = [int(field) for field in fields[1:9]]
    return (values[7], sum(values)) if len(values) == 8 else None
