"""What of a compressed model is trained, and which tensors it shares with the original."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.inliner import inline_local_functions

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.ops import is_op, standard_op
from onnx_lowrank.training.settings import Part

# Inputs of a node that are weights.
_WEIGHTS = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
}
_LAYERS = ("Conv", "Gemm", "MatMul")


def trainable(original: onnx.ModelProto, compressed: onnx.ModelProto, part: Part) -> list[str]:
    """Return the initializers of a compressed model that are trained, in the order of the graph.

    Factors are the weights that the original lacks by name; what is above are the other weights of
    nodes that depend on a factor.

    Parameters
    ----------
    original, compressed : onnx.ModelProto
        The models; not changed.
    part : {"factors", "above", "both"}
        What is trained.

    Raises
    ------
    ModelError
        There is nothing of that kind, or it is not in float32.
    """
    flat = inline_local_functions(compressed) if compressed.functions else compressed
    old = {tensor.name for tensor in original.graph.initializer}
    kinds = {tensor.name: tensor.data_type for tensor in compressed.graph.initializer}
    factors: list[str] = []
    above: list[str] = []
    dependent: set[str] = set()
    for node in flat.graph.node:
        slots = _WEIGHTS.get(standard_op(node), ())
        weights = [node.input[i] for i in slots if i < len(node.input) and node.input[i] in kinds]
        floats = [
            w for w in weights if np.dtype(helper.tensor_dtype_to_np_dtype(kinds[w])).kind == "f"
        ]
        new = [weight for weight in floats if weight not in old]
        factors += new
        if dependent.intersection(node.input):
            above += [weight for weight in floats if weight in old]
        if new or dependent.intersection(node.input):
            dependent.update(node.output)
    if not factors:
        raise ModelError(
            "the compressed model has no weight that the original lacks; give the original first, "
            "then a model made from it by compress"
        )
    chosen = list(
        dict.fromkeys({"factors": factors, "above": above, "both": factors + above}[part])
    )
    if not chosen:
        raise ModelError("there is no weight above the factors; train the factors")
    for name in chosen:
        if kinds[name] != onnx.TensorProto.FLOAT:
            kind = helper.tensor_dtype_to_np_dtype(kinds[name])
            raise ModelError(f"weight '{name}' is {kind}; train the float32 model, then convert it")
    return chosen


def shared_features(original: onnx.ModelProto, compressed: onnx.ModelProto) -> list[str]:
    """Return the outputs of replaced layers, tensors of one name in both models.

    A BatchNormalization that was folded into a layer is that layer's output.
    """
    made = {name: node for node in compressed.graph.node for name in node.output}
    return [
        node.output[0]
        for node in original.graph.node
        if is_op(node, *_LAYERS, "BatchNormalization")
        and node.output[0] in made
        and list(made[node.output[0]].input) != list(node.input)
    ]
