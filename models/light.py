"""Gives the "light" networks of the onnx package seeded random weights.

The onnx package carries the structure of well-known networks with every weight replaced by a
``ConstantOfShape`` node. Constant weights make every layer rank one and every output constant, so
they serve for no measurement; He-normal weights keep the variance of the activations from layer to
layer.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

SEED = 0
# BatchNormalization's inputs 1 to 4: scale, bias, mean, variance.
BATCH_NORM = {1: 1.0, 2: 0.0, 3: 0.0, 4: 1.0}


def materialise(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Return the model with its ``ConstantOfShape`` weights as random initializers.

    Every float parameter is set anew, the few trained ones left in the light models included: a
    trained variance beside random weights lets activations vanish or explode. By the node that
    reads it:

    1. weight of a Conv or Gemm, direct or through a Reshape: normal, standard deviation
       ``sqrt(2 / fan_in)``;
    2. its bias: 0;
    3. BatchNormalization: scale 1, bias 0, mean 0, variance 1; scale 1/2 where the output is a
       term of a Sum, or the activations would double with every residual block;
    4. a scale and shift as Unsqueeze -> Mul and Unsqueeze -> Add: 1 and 0.

    Names, nodes, attributes, IR version and opset stay as they are. With an IR version below 4 each
    initializer is a graph input too, as that version demands.

    Parameters
    ----------
    model : onnx.ModelProto
        A light model; not changed.
    rng : numpy.random.Generator
        Drawn from in the order of the nodes.

    Raises
    ------
    ValueError
        A parameter is read by a node that none of the cases covers.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    fillers = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes = {
        node.output[0]: tuple(map(int, numpy_helper.to_array(stored[node.input[0]])))
        for node in fillers
    }
    shapes |= {
        name: tuple(tensor.dims)
        for name, tensor in stored.items()
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]

    values: dict[str, npt.NDArray[np.float32]] = {}
    for index, node in enumerate(kept):
        for slot, name in enumerate(node.input):
            if name in shapes and name not in values:
                values[name] = _value(kept, index, slot, shapes[name], rng)

    shape_names = {node.input[0] for node in fillers}
    del graph.node[:]
    graph.node.extend(kept)
    others = [t for t in graph.initializer if t.name not in values and t.name not in shape_names]
    del graph.initializer[:]
    graph.initializer.extend(others)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in values.items())
    inputs = [value for value in graph.input if value.name not in shape_names]
    if model.ir_version < 4:
        listed = {value.name for value in inputs}
        inputs += [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape)
            for name, value in values.items()
            if name not in listed
        ]
    del graph.input[:]
    graph.input.extend(inputs)
    return result


def _value(
    nodes: list[onnx.NodeProto],
    index: int,
    slot: int,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Return the parameter that node `index` reads at input `slot`."""
    node = nodes[index]
    if (node.op_type, slot) in (("Conv", 1), ("Gemm", 1), ("Reshape", 0)):
        return _he_normal(shape, prod(shape[1:]), rng)
    if node.op_type in ("Conv", "Gemm") and slot == 2:
        return np.zeros(shape, np.float32)
    if node.op_type == "BatchNormalization":
        residual = slot == 1 and _reader(nodes, node.output[0]) == "Sum"
        return np.full(shape, 0.5 if residual else BATCH_NORM[slot], np.float32)
    if node.op_type == "Unsqueeze":
        reader = _reader(nodes, node.output[0])
        if reader in ("Mul", "Add"):
            return np.full(shape, 1.0 if reader == "Mul" else 0.0, np.float32)
    raise ValueError(f"parameter {node.input[slot]!r} of {node.op_type} has no known role")


def _reader(nodes: list[onnx.NodeProto], tensor: str) -> str:
    return next((node.op_type for node in nodes if tensor in node.input), "")


def _he_normal(
    shape: tuple[int, ...], fan_in: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    # K. He et al., "Delving Deep into Rectifiers", 2015, equation 10.
    deviation = np.float32(np.sqrt(2.0 / fan_in))
    return rng.standard_normal(shape, dtype=np.float32) * deviation
