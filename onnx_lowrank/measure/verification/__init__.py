"""Comparison of two models' outputs on the same inputs, and the verdict."""

from onnx_lowrank.measure.verification.report import EngineResult, Tolerance, VerifyReport
from onnx_lowrank.measure.verification.run import verify

__all__ = ["EngineResult", "Tolerance", "VerifyReport", "verify"]
