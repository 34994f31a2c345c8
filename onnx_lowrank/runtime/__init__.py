"""Running models: the only package that imports onnxruntime, and only when a session is opened."""

from onnx_lowrank.runtime.require import require_provider
from onnx_lowrank.runtime.session import (
    NO_SPINNING,
    Provider,
    Session,
    available_providers,
    check_provider,
    open_session,
)
from onnx_lowrank.runtime.tensor import TensorInfo, fix_shapes, model_inputs

__all__ = [
    "NO_SPINNING",
    "Provider",
    "Session",
    "TensorInfo",
    "available_providers",
    "check_provider",
    "fix_shapes",
    "model_inputs",
    "open_session",
    "require_provider",
]
