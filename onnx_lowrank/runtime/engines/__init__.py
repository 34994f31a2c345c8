"""Engines: where models are run and timed."""

from __future__ import annotations

from onnx_lowrank.bounds import MOST_WORKERS, check_count
from onnx_lowrank.errors import OnnxLowRankError, ProviderError
from onnx_lowrank.registry import Registry
from onnx_lowrank.runtime.engines.base import Engine, LoadedModel
from onnx_lowrank.runtime.engines.openvino import OpenVinoEngine
from onnx_lowrank.runtime.engines.ort import OrtEngine
from onnx_lowrank.runtime.session import Provider

ENGINES: Registry[Engine] = Registry((OrtEngine("cpu"), OrtEngine("cuda"), OpenVinoEngine()))
"""All engines; adding one takes its file, a line here, and a test."""

CPU: Engine = ENGINES["cpu"]

__all__ = [
    "CPU",
    "ENGINES",
    "Engine",
    "LoadedModel",
    "OpenVinoEngine",
    "OrtEngine",
    "default_engines",
    "keeps_one_core_busy",
    "onnxruntime_provider",
    "open_engine",
    "statistics_note",
]


def open_engine(name: str, threads: int | None = None) -> Engine:
    """Return the engine of a name, for a number of threads; its own choice by default.

    Raises
    ------
    ProviderError
        There is none of that name.
    OnnxLowRankError
        The number of threads is out of range.
    """
    if name not in ENGINES.names:
        raise ProviderError(f"unknown engine '{name}'; choose one of {', '.join(ENGINES.names)}")
    check_count("threads", threads, OnnxLowRankError, most=MOST_WORKERS)
    return ENGINES[name].with_threads(threads)


def onnxruntime_provider(name: str, task: str) -> Provider:
    """Return the provider of an engine, for a task that only onnxruntime can do.

    Parameters
    ----------
    name : str
        The engine's name.
    task : str
        The task, as the subject of a sentence.

    Raises
    ------
    ProviderError
        There is no such engine, or it is not onnxruntime.
    """
    engine = open_engine(name)
    if not isinstance(engine, OrtEngine):
        known = " or ".join(e.name for e in ENGINES if isinstance(e, OrtEngine))
        raise ProviderError(f"{task} takes onnxruntime, not {name}; choose the engine {known}")
    return engine.device


def default_engines() -> tuple[Engine, ...]:
    """Return where models are verified where no engine is named: wherever onnxruntime works."""
    return (CPU, ENGINES["cuda"])


def keeps_one_core_busy(engine: Engine) -> bool:
    """Whether a run keeps exactly one processor busy, so that any other load on it shows."""
    return engine.threads == 1 and engine.device == "cpu"


def statistics_note(engine: Engine) -> tuple[str, ...]:
    """Return a sentence on where statistics for fits were taken, unless that was the engine."""
    if isinstance(engine, OrtEngine):
        return ()
    place = engine.device.upper()
    return (f"statistics for fits were taken in onnxruntime on {place}, of the same network",)
