"""Validity of a model, and the shapes of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import checker, shape_inference

from onnx_lowrank.errors import ModelError, suggest

Shape = tuple["int | str | None", ...]
LARGE = 1024  # bytes of an initializer above which its values cannot matter to shapes


def check_model(model: onnx.ModelProto) -> None:
    """Raise ModelError if the model is invalid: checker, unique names, strict shape inference."""
    names = Counter(o for node in model.graph.node for o in node.output if o)
    names.update(t.name for t in model.graph.initializer)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ModelError(f"two tensors are called '{twice[0]}'; rename one of them")
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        line = " ".join(str(error).split())
        raise ModelError(f"the model is not valid ONNX: {line}; export it again") from None


def infer_shapes(
    model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Shape]:
    """Return the shape of every tensor that has one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inputs = {value.name: value for value in copy.graph.input}
    for name, shape in (input_shapes or {}).items():
        if name not in inputs:
            raise ModelError(f"the model has no input '{name}'{suggest(name, inputs)}")
        tensor = inputs[name].type.tensor_type
        if tensor.HasField("shape") and len(tensor.shape.dim) != len(shape):
            raise ModelError(f"input '{name}' has {len(tensor.shape.dim)} axes, not {len(shape)}")
        del tensor.shape.dim[:]
        for size in shape:
            tensor.shape.dim.add().dim_value = size
    if input_shapes:
        del copy.graph.value_info[:]
        for value in copy.graph.output:
            value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(copy, data_prop=True)
    graph = inferred.graph
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or None
            for d in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
