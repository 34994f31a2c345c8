"""Validity of a model, and the shapes of its tensors."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Error  # type: ignore[import-untyped]
from onnx import checker, helper, shape_inference

from onnx_lowrank.errors import ModelError, suggest
from onnx_lowrank.graph.external import refer
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.without_weights import split_weights, tensor_bytes

Shape = tuple["int | str | None", ...]

# Initializers of this many bytes are weights: no shape is computed from their values.
LARGE = 2**16
LONGEST = 400  # characters of an explanation


def check_model(model: onnx.ModelProto) -> None:
    """Check a model of any size: names, onnx's checker, strict shape inference.

    Parameters
    ----------
    model : onnx.ModelProto
        With its external data loaded.

    Raises
    ------
    ModelError
        The model is invalid; the message names where.
    """
    graph = model.graph
    names = Counter(output for node in graph.node for output in node.output if output)
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    names.update({value.name for value in graph.input} - {t.name for t in graph.initializer})
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ModelError(f"two tensors are called '{twice[0]}'; rename one of them")
    for tensor in graph.initializer:
        if tensor.HasField("raw_data") and len(tensor.raw_data) != tensor_bytes(tensor):
            raise ModelError(
                f"initializer '{tensor.name}' has {len(tensor.raw_data)} bytes of data, its type "
                f"and shape {list(tensor.dims)} ask for {tensor_bytes(tensor)}; export it again"
            )
    light, pairs = split_weights(model, above=LARGE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            # The checker sees large weights as external data: it does not read their values, and
            # a model beyond 2 GiB passes through it at all only in this way.
            (Path(folder) / "data").touch()
            for _, copy in pairs:
                refer(copy, "data", 0)
            path = Path(folder) / "model.onnx"
            bare = _missing_types(light.graph)
            path.write_bytes(light.SerializeToString())
            checker.check_model(str(path))
        for value, kind in bare:
            value.type.CopyFrom(kind)
        shape_inference.infer_shapes(light, check_type=True, strict_mode=True)
    except (
        checker.ValidationError,
        shape_inference.InferenceError,
        Error,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        line = " ".join(str(error).split())
        if len(line) > LONGEST:  # one error brings about others in all that comes behind it
            line = f"{line[:LONGEST]} ..."
        raise ModelError(f"the model is not valid ONNX: {line}; export it again") from None


def _missing_types(graph: onnx.GraphProto) -> list[tuple[onnx.ValueInfoProto, onnx.TypeProto]]:
    """Complete the types of inputs and outputs, which the checker asks for and runtimes do not.

    Returns
    -------
    list of (ValueInfoProto, TypeProto)
        What was changed, and the type that it had.
    """
    changed = []
    for value in (*graph.input, *graph.output):
        old = onnx.TypeProto()
        old.CopyFrom(value.type)
        if value.type.WhichOneof("value") is None:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
            changed.append((value, old))
    return changed


def infer_shapes(
    model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Shape]:
    """Return the shape of every tensor of the main graph that has one.

    Shapes are computed. Those noted in the model (``value_info``) are used only for tensors that
    inference does not reach, behind an unknown op, and not where `input_shapes` changes a size that
    the model fixes.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed.
    input_shapes : mapping of str to tuple of int, optional
        Shapes of inputs, in place of the model's own.

    Returns
    -------
    dict of str to tuple of int, str or None
        Sizes; names or None where the model leaves them open. Tensors of unknown rank are absent.

    Raises
    ------
    ModelError
        An input is unknown, or does not have that many axes.
    """
    light, _ = split_weights(model, above=LARGE)
    noted = {value.name: value for value in model.graph.value_info}
    if _set_input_shapes(light.graph, input_shapes or {}):
        noted = {}
    if input_shapes:
        for value in light.graph.output:
            value.type.tensor_type.ClearField("shape")
    del light.graph.value_info[:]
    shapes = _infer(light)
    missing = [value for name, value in noted.items() if name not in shapes]
    if missing:
        light.graph.value_info.extend(missing)
        shapes = _infer(light)
    while ranks := _lost_ranks(light.graph, shapes):
        for name, rank, kind in ranks:
            value = light.graph.value_info.add(name=name)
            value.type.tensor_type.elem_type = kind
            for _ in range(rank):
                value.type.tensor_type.shape.dim.add()
        found = _infer(light)
        if len(found) <= len(shapes):
            break
        shapes = found
    return shapes


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type, as ``TensorProto.DataType``, of every tensor where it is known."""
    light, _ = split_weights(model, above=LARGE)
    with contextlib.suppress(shape_inference.InferenceError, Error, ValueError, RuntimeError):
        light = shape_inference.infer_shapes(light)
    graph = light.graph
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.HasField("tensor_type"):
            types[value.name] = value.type.tensor_type.elem_type
    return types


def inferred_types(
    model: onnx.ModelProto,
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...] | None]]:
    """Return the types and shapes that follow from the inputs alone, by the name of the tensor.

    A shape is None where a size is open. Nothing is taken from notes on inner tensors.
    """
    light, _ = split_weights(model, above=LARGE)
    del light.graph.value_info[:]
    for value in light.graph.output:
        value.ClearField("type")
    with contextlib.suppress(shape_inference.InferenceError, Error, ValueError, RuntimeError):
        light = shape_inference.infer_shapes(light, data_prop=True)
    found = {}
    for value in (*light.graph.input, *light.graph.value_info, *light.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.UNDEFINED:
            continue
        sizes = [_size(dim) for dim in tensor.shape.dim] if tensor.HasField("shape") else [None]
        fixed = tuple(size for size in sizes if isinstance(size, int))
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        found[value.name] = dtype, fixed if len(fixed) == len(sizes) else None
    return found


def _lost_ranks(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> list[tuple[str, int, int]]:
    """Return name, rank and type of what Reshapes give whose target has a length but no value."""
    kind = next((v.type.tensor_type.elem_type for v in graph.input), onnx.TensorProto.FLOAT)
    noted = {value.name for value in graph.value_info}
    found = []
    for node in graph.node:
        if is_op(node, "Reshape") and len(node.input) > 1:
            length = shapes.get(node.input[1], ())
            name = node.output[0]
            if name in shapes or name in noted or len(length) != 1:
                continue
            if isinstance(length[0], int):
                found.append((name, length[0], kind))
    return found


def _set_input_shapes(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Set the shapes of inputs; return whether a size changes that was fixed."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    changed = False
    for name, shape in shapes.items():
        if name not in inputs:
            raise ModelError(
                f"the model has no input '{name}'"
                + (suggest(name, inputs) or f"; its inputs are {', '.join(map(repr, inputs))}")
            )
        tensor = inputs[name].type.tensor_type
        given = "x".join(map(str, shape))
        if tensor.HasField("shape") and len(tensor.shape.dim) != len(shape):
            raise ModelError(
                f"input '{name}' has {len(tensor.shape.dim)} axes, not the {len(shape)} of "
                f"{given}; give one size for each"
            )
        if any(size < 1 for size in shape):
            raise ModelError(f"input '{name}' cannot be of shape {given}; give positive sizes")
        changed |= any(
            dim.dim_value >= 0 and dim.dim_value != size
            for dim, size in zip(tensor.shape.dim, shape, strict=False)
            if dim.HasField("dim_value")
        )
        tensor.shape.Clear()
        for size in shape:
            tensor.shape.dim.add().dim_value = size
    return changed


def _infer(model: onnx.ModelProto) -> dict[str, Shape]:
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (
        shape_inference.InferenceError,
        checker.ValidationError,
        Error,
        ValueError,
        RuntimeError,
    ):
        graph = model.graph  # an invalid model: what it says of itself is all there is to know
    shapes: dict[str, Shape] = {
        value.name: tuple(map(_size, value.type.tensor_type.shape.dim))
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    return shapes


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # A negative size means an open one, for onnxruntime too.
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None
