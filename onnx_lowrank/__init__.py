"""Make trained CNNs in ONNX faster by low-rank approximation, and prove it.

The names below are imported when first used, so that ``import onnx_lowrank`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from onnx_lowrank.data import Preprocess
    from onnx_lowrank.measure.benchmarking import BenchReport
    from onnx_lowrank.measure.profiling import ProfileReport
    from onnx_lowrank.measure.verification import Tolerance, VerifyReport
    from onnx_lowrank.pipelines.benchmark import benchmark
    from onnx_lowrank.pipelines.budget_result import BudgetResult
    from onnx_lowrank.pipelines.cascade import CascadeResult, cascade
    from onnx_lowrank.pipelines.compress import compress
    from onnx_lowrank.pipelines.correct import correct
    from onnx_lowrank.pipelines.estimate import estimate
    from onnx_lowrank.pipelines.finetune import finetune
    from onnx_lowrank.pipelines.inspect import cost, inspect
    from onnx_lowrank.pipelines.profile import profile
    from onnx_lowrank.pipelines.result import CompressReport, CompressResult, CostReport, LayerInfo
    from onnx_lowrank.pipelines.sweeping import SweepData, SweepReport, sweep
    from onnx_lowrank.pipelines.verify import verify
    from onnx_lowrank.pipelines.within_budget import compress_to_budget
    from onnx_lowrank.planning.budget import Budget
    from onnx_lowrank.planning.plan import Plan
    from onnx_lowrank.runtime.doctor import diagnose
    from onnx_lowrank.runtime.library import library_path, session_options
    from onnx_lowrank.search.latency_table import measure_latencies

_MODULES = {
    "BenchReport": "measure.benchmarking",
    "Budget": "planning.budget",
    "BudgetResult": "pipelines.budget_result",
    "CascadeResult": "pipelines.cascade",
    "CompressReport": "pipelines.result",
    "CompressResult": "pipelines.result",
    "CostReport": "pipelines.result",
    "LayerInfo": "pipelines.result",
    "Plan": "planning.plan",
    "Preprocess": "data",
    "ProfileReport": "measure.profiling",
    "SweepData": "pipelines.sweeping",
    "SweepReport": "pipelines.sweeping",
    "Tolerance": "measure.verification",
    "VerifyReport": "measure.verification",
    "benchmark": "pipelines.benchmark",
    "cascade": "pipelines.cascade",
    "compress": "pipelines.compress",
    "compress_to_budget": "pipelines.within_budget",
    "correct": "pipelines.correct",
    "cost": "pipelines.inspect",
    "diagnose": "runtime.doctor",
    "estimate": "pipelines.estimate",
    "finetune": "pipelines.finetune",
    "inspect": "pipelines.inspect",
    "library_path": "runtime.library",
    "measure_latencies": "search.latency_table",
    "profile": "pipelines.profile",
    "session_options": "runtime.library",
    "sweep": "pipelines.sweeping",
    "verify": "pipelines.verify",
}

__all__ = [
    "BenchReport",
    "Budget",
    "BudgetResult",
    "CascadeResult",
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
    "cascade",
    "compress",
    "compress_to_budget",
    "correct",
    "cost",
    "diagnose",
    "estimate",
    "finetune",
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
    if name in _MODULES:
        return getattr(import_module(f"onnx_lowrank.{_MODULES[name]}"), name)
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
