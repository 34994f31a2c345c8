"""Values of tensors that do not depend on a model's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_lowrank.graph.skeleton import bodies

Array = NDArray[Any]

# What they give is not fixed by what they read.
_RANDOM = ("Random", "Multinomial", "Bernoulli", "Dropout")
# The reference lacks older versions, which compute the same.
_SINCE = {"DequantizeLinear": 19}


def is_random(node: onnx.NodeProto) -> bool:
    """Whether what a node gives is not fixed by what it reads."""
    return node.domain in ("", "ai.onnx") and node.op_type.startswith(_RANDOM)


def value_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the inputs whose values a node reads: of its second, CastLike takes the type alone."""
    inputs = [name for name in node.input if name]
    like = node.op_type == "CastLike" and node.domain in ("", "ai.onnx")
    return inputs[:1] if like else inputs


def as_cast(node: onnx.NodeProto, kind: int) -> onnx.NodeProto:
    """Return a CastLike as the Cast to an element type."""
    return helper.make_node("Cast", node.input[:1], node.output, name=node.name, to=kind)


def can_evaluate(node: onnx.NodeProto) -> bool:
    """Whether a node gives a constant where all that it reads is constant."""
    return (
        node.domain in ("", "ai.onnx")
        and not is_random(node)
        and not any(True for _ in bodies(node))
    )


def evaluate(
    node: onnx.NodeProto, output: str, values: dict[str, Array], opset: int
) -> Array | None:
    """Compute one output of a node.

    Parameters
    ----------
    node : onnx.NodeProto
        A node that `can_evaluate` accepts.
    output : str
        Name of the output.
    values : dict of str to ndarray
        What the node reads.
    opset : int
        Version of the standard operators.

    Returns
    -------
    ndarray or None
        The value; it may be a read-only view. None where it cannot be computed, or is no tensor.
    """
    if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
        return np.asarray(numpy_helper.to_array(node.attribute[0].t))
    if node.op_type == "ConstantOfShape":
        # Networks without trained weights are written so: a view takes no memory.
        fill = np.zeros((), np.float32)
        if node.attribute:
            fill = np.asarray(numpy_helper.to_array(node.attribute[0].t)).reshape(())
        return np.broadcast_to(fill, values[node.input[0]].tolist())
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_value_info(name, onnx.TypeProto()) for name in values],
        [helper.make_value_info(output, onnx.TypeProto())],
    )
    version = max(opset, _SINCE.get(node.op_type, opset))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    try:
        (result,) = ReferenceEvaluator(model).run([output], values)
    except Exception:  # an op, or a version of it, that the reference lacks: any may be raised
        return None
    return np.asarray(result) if isinstance(result, np.ndarray | np.generic) else None
