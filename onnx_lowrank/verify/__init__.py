"""Comparison of two models' outputs on the same inputs, and the verdict."""

from onnx_lowrank.verify.report import ProviderResult, Tolerance, VerifyReport
from onnx_lowrank.verify.run import verify

__all__ = ["ProviderResult", "Tolerance", "VerifyReport", "verify"]
