"""Statistics of the inputs of a model's layers, from passes over data."""

from onnx_lowrank.fitting.statistics.jobs import Sampling, Survey
from onnx_lowrank.fitting.statistics.run import calibrate, statistics_keys
from onnx_lowrank.fitting.statistics.stepwise import StepwiseStatistics
from onnx_lowrank.fitting.statistics.stored import StoredStatistics

__all__ = [
    "Sampling",
    "StepwiseStatistics",
    "StoredStatistics",
    "Survey",
    "calibrate",
    "statistics_keys",
]
