"""Make trained CNNs in ONNX faster by low-rank approximation, and prove it.

The names below are imported when first used, so that ``import onnx_lowrank`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

__all__ = [
    "CompressReport",
    "CompressResult",
    "CostReport",
    "LayerInfo",
    "Plan",
    "Preprocess",
    "Tolerance",
    "VerifyReport",
    "__version__",
    "compress",
    "cost",
    "diagnose",
    "inspect",
    "verify",
]

try:
    __version__ = version("onnx_lowrank")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("onnx_lowrank.api"), name)
    raise AttributeError(f"module 'onnx_lowrank' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
