"""Values of tensors that do not depend on a model's inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from onnx_lowrank.graph.check import inferred_types
from onnx_lowrank.graph.ops import is_op, standard_op
from onnx_lowrank.graph.without_weights import bodies
from onnx_lowrank.types import AnyArray

# What they give is not fixed by what they read.
_RANDOM = ("Random", "Multinomial", "Bernoulli", "Dropout")
# Of a constant: no weight of a network is larger, and memory for it is not taken.
MOST_ELEMENTS = 2**32
MOST_OF_A_VIEW = 2**48  # a view takes none
_SMALL = 64  # elements of an input that may say how large the output is
# The reference lacks older versions, which compute the same.
_SINCE = {"DequantizeLinear": 19}


class Constants:
    """The values of a graph's tensors that do not depend on the model's inputs.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    initializers, producers : mapping
        Initializers by name, and nodes by the names of their outputs; they may change.
    opset : int
        Version of the standard operators.

    Attributes
    ----------
    optional : frozenset of str
        Initializers that are listed among the inputs, from IR 4 on: a caller may override them.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        initializers: Mapping[str, onnx.TensorProto],
        producers: Mapping[str, onnx.NodeProto],
        opset: int,
    ) -> None:
        self._model, self._opset = model, opset
        self._initializers, self._producers = initializers, producers
        self._computed: dict[str, AnyArray | None] = {}
        self._types: dict[str, tuple[np.dtype[Any], tuple[int, ...] | None]] | None = None
        inputs = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
        self.optional = frozenset(inputs & set(initializers))

    def optional_inputs(self, name: str) -> list[str]:
        """Return the optional inputs that a tensor is computed from."""
        found, pending, seen = [], [name] if self.optional else [], set[str]()
        while pending:
            tensor = pending.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            if tensor in self.optional:
                found.append(tensor)
            elif (node := self._producers.get(tensor)) is not None:
                pending += value_inputs(node)
        return found

    def value(self, name: str) -> AnyArray | None:
        """Return the value of a tensor, optional inputs at their defaults; None if it has none."""
        if name in self._initializers:  # not kept: the model has it already
            return np.asarray(numpy_helper.to_array(self._initializers[name]))
        # Without recursion: chains can be longer than Python's stack. An invalid model may have a
        # cycle: what waits for itself has no value.
        pending, waiting = [name], set[str]()
        while pending:
            tensor = pending[-1]
            if tensor not in self._computed and tensor not in waiting:
                waiting.add(tensor)
                pending.extend(self._missing(tensor))
                continue
            pending.pop()
            if tensor not in self._computed:
                self._computed[tensor] = self._evaluate(tensor)
        return self._computed[name]

    def _missing(self, name: str) -> list[str]:
        """Return the computed tensors that a tensor's value waits for."""
        node = self._producers.get(name)
        if node is None or not can_evaluate(node):
            return []
        inputs = [i for i in value_inputs(node) if i not in self._initializers]
        if any(self._computed.get(i, ...) is None or i not in self._producers for i in inputs):
            return []
        return [i for i in inputs if i not in self._computed]

    def _evaluate(self, name: str) -> AnyArray | None:
        node = self._producers.get(name)
        if node is None or not can_evaluate(node):
            return None
        values = {}
        needed = value_inputs(node)
        for each in filter(None, node.input):
            value = self._computed.get(each)
            if each in self._initializers:
                value = np.asarray(numpy_helper.to_array(self._initializers[each]))
            if value is None and each not in needed:
                value = self._like(each, sized=is_op(node, "Shape", "Size"))
            if value is None:
                return None
            values[each] = value
        return evaluate(node, name, values, self._opset)

    def _like(self, name: str, *, sized: bool) -> AnyArray | None:
        """Return zeros of a tensor's type, and of its shape if that is asked for; None if unknown.

        Only what the inputs say and inference finds counts: notes in a model may be stale.
        """
        if self._types is None:
            self._types = inferred_types(self._model)
        found = self._types.get(name)
        if found is None:
            return None
        dtype, shape = found
        if not sized:
            return np.zeros((), dtype)
        return None if shape is None else np.broadcast_to(np.zeros((), dtype), shape)


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
    node: onnx.NodeProto, output: str, values: dict[str, AnyArray], opset: int
) -> AnyArray | None:
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


def _elements(model: onnx.ModelProto, output: str, values: dict[str, AnyArray]) -> int:
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
