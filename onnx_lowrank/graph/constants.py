"""Values of tensors that do not depend on a model's inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from onnx_lowrank.graph.ops import is_op, standard_op
from onnx_lowrank.graph.skeleton import bodies

Array = NDArray[Any]

# What they give is not fixed by what they read.
_RANDOM = ("Random", "Multinomial", "Bernoulli", "Dropout")
# Of a constant: no weight of a network is larger, and memory for it is not taken.
MOST_ELEMENTS = 2**32
MOST_OF_A_VIEW = 2**48  # a view takes none
_SMALL = 64  # elements of an input that may say how large the output is
# The reference lacks older versions, which compute the same.
_SINCE = {"DequantizeLinear": 19}


def is_random(node: onnx.NodeProto) -> bool:
    """Whether what a node gives is not fixed by what it reads."""
    return standard_op(node).startswith(_RANDOM)


def can_evaluate(node: onnx.NodeProto) -> bool:
    """Whether a node gives a constant where all that it depends on is constant."""
    return is_op(node) and not is_random(node) and not any(True for _ in bodies(node))


def value_inputs(node: onnx.NodeProto) -> list[str]:
    """Return the inputs of a node whose values bear on what it gives.

    CastLike reads the type alone of its second input, Shape and Size the shape alone of theirs.
    """
    names = [name for name in node.input if name]
    if is_op(node, "CastLike"):
        return names[:1]
    return [] if is_op(node, "Shape", "Size") else names


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
    if is_op(node, "Constant") and node.attribute and node.attribute[0].name == "value":
        return np.asarray(numpy_helper.to_array(node.attribute[0].t))
    if is_op(node, "ConstantOfShape"):
        # Networks without trained weights are written so: a view takes no memory.
        shape = [int(size) for size in values[node.input[0]].ravel()]
        if min(shape, default=0) < 0 or math.prod(shape) > MOST_OF_A_VIEW:
            return None
        fill = np.zeros((), np.float32)
        if node.attribute:
            fill = np.asarray(numpy_helper.to_array(node.attribute[0].t)).reshape(())
        return np.broadcast_to(fill, shape)
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_value_info(name, onnx.TypeProto()) for name in values],
        [helper.make_value_info(output, onnx.TypeProto())],
    )
    version = max(opset, _SINCE.get(standard_op(node), opset))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    if _elements(model, output, values) > MOST_ELEMENTS:
        return None
    try:
        (result,) = ReferenceEvaluator(model).run([output], values)
    except Exception:  # an op, or a version of it, that the reference lacks: any may be raised
        return None
    return np.asarray(result) if isinstance(result, np.ndarray | np.generic) else None


def _elements(model: onnx.ModelProto, output: str, values: dict[str, Array]) -> int:
    """Return how many elements a node's output will have; those it reads where that is unknown.

    A few bytes can ask for more memory than there is: Expand, Tile, Range, Pad, a sum of two axes.
    """
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.input[:]
    for name, value in values.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        asked.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
        if value.size <= _SMALL:
            asked.graph.initializer.append(numpy_helper.from_array(value, name))
    try:
        graph = shape_inference.infer_shapes(asked, data_prop=True).graph
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return 0  # the reference says what is wrong
    dims = [
        dim.dim_value
        for value in graph.output
        if value.name == output
        for dim in value.type.tensor_type.shape.dim
    ]
    return math.prod(dims)
