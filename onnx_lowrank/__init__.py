"""Make trained CNNs in ONNX faster by low-rank approximation, and prove it.

The names below are imported when first used, so that ``import onnx_lowrank`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from onnx_lowrank.api import (
        CompressReport,
        CompressResult,
        CostReport,
        LayerInfo,
        Plan,
        Preprocess,
        Tolerance,
        VerifyReport,
        compress,
        cost,
        diagnose,
        inspect,
        verify,
    )
    from onnx_lowrank.measure.benchmarking import BenchReport, benchmark
    from onnx_lowrank.measure.profiling import ProfileReport, profile
    from onnx_lowrank.planning.budget import Budget
    from onnx_lowrank.runtime.library import library_path, session_options
    from onnx_lowrank.sweeping import SweepData, SweepReport, sweep
    from onnx_lowrank.to_budget import BudgetResult, compress_to_budget, measure_latencies

_ELSEWHERE = {
    "BenchReport": "benchmarking",
    "Budget": "planning.budget",
    "BudgetResult": "to_budget",
    "ProfileReport": "profiling",
    "SweepData": "sweeping",
    "SweepReport": "sweeping",
    "benchmark": "benchmarking",
    "compress_to_budget": "to_budget",
    "library_path": "runtime.library",
    "measure_latencies": "to_budget",
    "profile": "profiling",
    "session_options": "runtime.library",
    "sweep": "sweeping",
}

__all__ = [
    "BenchReport",
    "Budget",
    "BudgetResult",
    "CompressReport",
    "CompressResult",
    "CostReport",
    "LayerInfo",
    "Plan",
    "Preprocess",
    "ProfileReport",
    "SweepData",
    "SweepReport",
    "Tolerance",
    "VerifyReport",
    "__version__",
    "benchmark",
    "compress",
    "compress_to_budget",
    "cost",
    "diagnose",
    "inspect",
    "library_path",
    "measure_latencies",
    "profile",
    "session_options",
    "sweep",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        return getattr(import_module(f"onnx_lowrank.{_ELSEWHERE.get(name, 'api')}"), name)
    raise AttributeError(f"module 'onnx_lowrank' has no attribute '{name}'")


def _version() -> str:
    # Imported here: it takes as long as starting Python does.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnx_lowrank")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
