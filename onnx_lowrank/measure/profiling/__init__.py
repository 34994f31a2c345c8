"""Where the time of a forward pass goes, layer by layer."""

from onnx_lowrank.measure.profiling.forward import name_nodes
from onnx_lowrank.measure.profiling.result import UNATTRIBUTED, ModelProfile, ProfileReport, Row

__all__ = ["UNATTRIBUTED", "ModelProfile", "ProfileReport", "Row", "name_nodes"]
