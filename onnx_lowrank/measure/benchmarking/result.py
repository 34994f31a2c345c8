"""What `benchmark` measured, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onnx_lowrank.runtime.machine import Noise
from onnx_lowrank.runtime.memory import Memory
from onnx_lowrank.runtime.statistics import Latency, RatioInterval


@dataclass(frozen=True)
class ContenderResult:
    """One contender under one setting.

    Attributes
    ----------
    name : str
        The model's file or graph, and what was done to it or runs it where that differs.
    latency : Latency
        Of one run, over all repeats.
    throughput : float
        Samples per second: the batch size over the mean latency.
    load_seconds : float
        Median time to load the model.
    file_size : int
        Bytes.
    memory : Memory or None
        Main memory, measured in a process of its own; None where the system does not tell.
    ratio : RatioInterval or None
        Latency over that of the first contender, paired in time; None for the first.
    sqnr_db : float or None
        Least signal-to-error ratio of its outputs against the first contender's on the same inputs;
        None for the first, and where no float output is common.
    differing_blocks : int
        Blocks of runs after which its outputs were not bit for bit those of its first run.
    """

    name: str
    latency: Latency
    throughput: float
    load_seconds: float
    file_size: int
    memory: Memory | None
    ratio: RatioInterval | None
    sqnr_db: float | None
    differing_blocks: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "name": self.name,
            "latency": self.latency.to_dict(),
            "throughput_per_s": self.throughput,
            "load_ms": 1e3 * self.load_seconds,
            "file_bytes": self.file_size,
            "memory": self.memory.to_dict() if self.memory else None,
            "ratio": self.ratio.to_dict() if self.ratio else None,
            "sqnr_db": self.sqnr_db,
            "same_outputs": self.differing_blocks == 0,
            "differing_blocks": self.differing_blocks,
        }


@dataclass(frozen=True)
class SettingResult:
    """All contenders at one batch size and number of threads.

    Attributes
    ----------
    batch : int
        Samples in one run.
    threads : int or None
        Threads of one run; None is the engine's own choice.
    repeats, rounds : int
        How often everything was loaded anew, and rounds in each repeat.
    contenders : tuple of ContenderResult
        In the order given.
    noise : Noise
        Signs of other work on the machine.
    session : dict of str to str
        Settings of the engine, the same for all contenders, as of
        `onnx_lowrank.runtime.Session`.
    """

    batch: int
    threads: int | None
    repeats: int
    rounds: int
    contenders: tuple[ContenderResult, ...]
    noise: Noise
    session: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "batch": self.batch,
            "threads": self.threads,
            "repeats": self.repeats,
            "rounds": self.rounds,
            "contenders": [contender.to_dict() for contender in self.contenders],
            "noise": self.noise.to_dict(),
            "session": dict(self.session),
        }


@dataclass(frozen=True)
class BenchReport:
    """What `benchmark` measured.

    Attributes
    ----------
    provider : str
        Name of the engine that ran the models, asserted for every session.
    settings : tuple of SettingResult
        One for each batch size and number of threads.
    seed : int
        Of the inputs and orders.
    machine : dict
        Processor, system, versions.
    notes : tuple of str
        Sentences on what was left out, and why.
    """

    provider: str
    settings: tuple[SettingResult, ...]
    seed: int
    machine: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "version": 1,
            "provider": self.provider,
            "seed": self.seed,
            "settings": [setting.to_dict() for setting in self.settings],
            "machine": self.machine,
            "notes": list(self.notes),
        }
