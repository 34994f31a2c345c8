"""Statistics of the inputs of a model's layers, from passes over data."""

from onnx_lowrank.calibrate.jobs import Survey
from onnx_lowrank.calibrate.run import calibrate, statistics_keys
from onnx_lowrank.calibrate.statistics import StoredStatistics
from onnx_lowrank.calibrate.stepwise import StepwiseStatistics

__all__ = ["StepwiseStatistics", "StoredStatistics", "Survey", "calibrate", "statistics_keys"]
