"""What may go wrong with one layer, and how it is said: one layer never ends a run."""

from __future__ import annotations

from numpy.linalg import LinAlgError

from onnx_lowrank.errors import DataError, ModelError, OnnxLowRankError, SchemeError

# What statistics, a fit or a rewriting may raise for one layer while the others are well.
LAYER_ERRORS = (DataError, ModelError, SchemeError, LinAlgError, ArithmeticError, MemoryError)


def layer_reason(error: BaseException) -> str:
    """Return one of `LAYER_ERRORS` as a reason why a layer is kept."""
    if isinstance(error, OnnxLowRankError):
        return str(error)
    if isinstance(error, MemoryError):
        return "its statistics or its fit take more memory than there is"
    return f"its fit ends in a singular problem ({error or type(error).__name__})"


def of_layer(layer: str, error: BaseException) -> OnnxLowRankError:
    """Return one of `LAYER_ERRORS` as an error that names the layer."""
    kind = type(error) if isinstance(error, OnnxLowRankError) else SchemeError
    return kind(f"layer '{layer}': {layer_reason(error)}")
