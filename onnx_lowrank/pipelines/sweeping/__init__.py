"""Grids of schemes, ranks and metrics, measured layer by layer on held-out data."""

from onnx_lowrank.pipelines.sweeping.result import PointResult, SweepReport
from onnx_lowrank.pipelines.sweeping.run import METRICS, sweep
from onnx_lowrank.pipelines.sweeping.samples import SweepData

__all__ = ["METRICS", "PointResult", "SweepData", "SweepReport", "sweep"]
