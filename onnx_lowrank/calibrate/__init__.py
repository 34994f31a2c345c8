"""Statistics of the inputs of a model's layers, from passes over data."""

from onnx_lowrank.calibrate.run import calibrate

__all__ = ["calibrate"]
