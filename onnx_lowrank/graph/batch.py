"""Another batch size for a model that fixes its own."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.ops import is_op


def set_batch(model: onnx.ModelProto, batch: int, *, inputs: Collection[str]) -> onnx.ModelProto:
    """Return a copy that takes `batch` samples at once of a model that fixes another number.

    1. The leading size of the named inputs, and of the outputs where it equals theirs, becomes
       `batch`.
    2. A Reshape of an activation to a constant shape that begins with the old batch size gets
       `batch` in its place.
    3. Shapes noted for inner tensors are dropped.

    Nothing tells a size of 1 that means the batch from one that means something else: the caller
    must check that the copy computes the same for each sample.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed, and returned as it is where it takes `batch` samples already.
    batch : int
        Samples at once.
    inputs : collection of str
        The inputs that have one row for each sample.

    Raises
    ------
    ModelError
        The inputs fix different batch sizes.
    """
    leads = {
        value.type.tensor_type.shape.dim[0].dim_value
        for value in model.graph.input
        if value.name in inputs and value.type.tensor_type.shape.dim
    }
    leads = {size for size in leads if size > 0}  # open ones have no value, or a negative one
    if leads <= {batch}:
        return model
    if len(leads) > 1:
        sizes = ", ".join(map(str, sorted(leads)))
        raise ModelError(
            f"the inputs fix different batch sizes ({sizes}); leave the batch as it is"
        )
    old = leads.pop()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        is_input = any(value.name == v.name for v in graph.input)
        named = value.name in inputs if is_input else True
        if named and dims and dims[0].dim_value == old:
            dims[0].dim_value = batch
    del graph.value_info[:]
    _reshape(graph, old, batch)
    return copy


def _reshape(graph: onnx.GraphProto, old: int, new: int) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if is_op(node, "Constant") and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    made: dict[str, str] = {}
    for node in graph.node:
        if not is_op(node, "Reshape") or node.input[0] in constants:
            continue
        name = node.input[1]
        if name not in made:
            tensor = constants.get(name)
            shape = None if tensor is None else numpy_helper.to_array(tensor)
            if shape is None or shape.size == 0 or shape[0] != old:
                continue
            made[name] = _free_name(graph, f"{name}_batch{new}")
            changed = np.array([new, *shape[1:]], np.int64)
            graph.initializer.append(numpy_helper.from_array(changed, made[name]))
        node.input[1] = made[name]


def _free_name(graph: onnx.GraphProto, name: str) -> str:
    taken = {t.name for t in graph.initializer} | {v.name for v in graph.input}
    taken.update(output for node in graph.node for output in node.output)
    while name in taken:
        name += "_"
    return name
