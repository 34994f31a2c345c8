"""What a model must hold before onnx and numpy look at it: they trust sizes, types and names.

onnx's own checker comes after it (`check_model`): what it says is not said here again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import TensorProto, defs

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.ops import STANDARD_DOMAINS, is_op
from onnx_lowrank.graph.without_weights import all_tensors, bodies, tensor_bytes

MOST_AXES = 64  # numpy's limit
MOST_ELEMENTS = 2**48  # of one tensor: sizes beyond it are no sizes, and products of them overflow
DEEPEST = 32  # bodies within bodies; protobuf itself ends at about as many
MOST_NODES = 2**20  # once every call of a function is written out
_INT32 = 2**31 - 1

_KINDS = {number: name for name, number in TensorProto.DataType.items()}
# Field that holds the values of a type where they are not raw, and its values per element.
_FIELDS = {
    **dict.fromkeys(("FLOAT", "COMPLEX64"), "float_data"),
    **dict.fromkeys(("DOUBLE", "COMPLEX128"), "double_data"),
    **dict.fromkeys(("UINT32", "UINT64"), "uint64_data"),
    "INT64": "int64_data",
    "STRING": "string_data",
}
_ALL_FIELDS = (
    *("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data"),
    "raw_data",
)
_POSITIVE = {"strides", "dilations", "kernel_shape", "group", "blocksize", "num_outputs"}
_BOUNDED = {"pads", "output_padding"}
_AUTO_PADS = {b"", b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER"}  # none is NOTSET, too
# Domains in which these names mean what they mean in the standard one.
_WINDOWED = (*STANDARD_DOMAINS, "com.microsoft", "com.microsoft.nchwc", "onnx_lowrank")


def validate(model: onnx.ModelProto) -> None:
    """Refuse a model that cannot be looked at safely.

    1. Bodies nested too deep, names that are no text, attributes outside of functions that refer to
       those of a function.
    2. Functions declared twice, calling themselves, taking the name of a standard operator in its
       domain (runtimes differ in which of the two they run), or calling each other so often that
       nobody could write them out.
    3. Tensors of an unknown type, of impossible dimensions, or whose data do not match them.
    4. Inputs and outputs of an unknown type, or of more elements than any memory holds.
    5. Windows, groups and blocks of a size that is none.
    6. Conv whose weight, bias and attributes contradict each other.
    7. A version of the standard operators that the installed onnx does not know, an input of the
       model without a type, and an auto_pad that there is none of.

    Parameters
    ----------
    model : onnx.ModelProto
        Any model; not changed.

    Raises
    ------
    ModelError
        Names what is wrong, and where.
    """
    _check_depth(model)
    for graph in _graphs(model):
        _check_names(graph)
    _check_version(model)
    _check_typed(model.graph)
    _check_functions(model)
    for tensor in all_tensors(model):
        check_tensor(tensor)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        _check_value(value)
    for node in _nodes(model):
        _check_sizes(node)
    for node in _nested(model.graph.node):
        _check_references(node)


def check_convs(model: onnx.ModelProto) -> None:
    """Refuse Convs of the main graph whose weight, bias and attributes contradict each other.

    Raises
    ------
    ModelError
        Names the node.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if is_op(node, "Conv") and len(node.input) > 1 and node.input[1] in shapes:
            bias = shapes.get(node.input[2]) if len(node.input) > 2 else None
            if reason := _conv_fault(node, shapes[node.input[1]], bias):
                raise ModelError(f"Conv '{_place(node)}' is invalid: {reason}; export it again")


def _conv_fault(
    node: onnx.NodeProto, weight: tuple[int, ...], bias: tuple[int, ...] | None
) -> str | None:
    axes = len(weight) - 2
    if axes < 1:
        return None  # the checker, or the listing of layers, says it
    values: dict[str, Any] = {a.name: a.i if a.name == "group" else a.ints for a in node.attribute}
    group = values.get("group", 1)
    if weight[0] % group:
        return f"{weight[0]} filters do not divide into {group} groups"
    if bias is not None and bias != (weight[0],):
        return f"its bias is of shape {list(bias)}, not [{weight[0]}]"
    kernel = list(values.get("kernel_shape", ()))
    if kernel and kernel != list(weight[2:]):
        return f"its kernel_shape {kernel} is not that of its weight, {list(weight[2:])}"
    for name, wanted in (("strides", axes), ("dilations", axes), ("pads", 2 * axes)):
        if name in values and len(values[name]) != wanted:
            return f"its {name} are {len(values[name])}, not {wanted}"
    return None


def _place(node: onnx.NodeProto) -> str:
    return str(node.name or next(iter(node.output), "") or node.op_type)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and every body, those in functions too."""
    pending = [model.graph, *(g for f in model.functions for n in f.node for _, g in bodies(n))]
    while pending:
        graph = pending.pop()
        yield graph
        pending += [body for node in graph.node for _, body in bodies(node)]


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _check_depth(model: onnx.ModelProto) -> None:
    level: list[Iterable[onnx.NodeProto]] = [model.graph.node, *(f.node for f in model.functions)]
    for _ in range(DEEPEST + 1):
        level = [body.node for nodes in level for node in nodes for _, body in bodies(node)]
        if not level:
            return
    raise ModelError(
        f"the model nests bodies of If, Loop or Scan more than {DEEPEST} deep; export it flatter"
    )


def _check_names(graph: onnx.GraphProto) -> None:
    values = (*graph.input, *graph.output, *graph.value_info)
    names = [graph.name, *(value.name for value in values), *(t.name for t in graph.initializer)]
    names += [
        d.dim_param for v in values for d in v.type.tensor_type.shape.dim if d.HasField("dim_param")
    ]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    # protobuf gives a text that is no UTF-8 as bytes, which no comparison finds equal to anything.
    wrong = next((name for name in names if isinstance(name, bytes)), None)
    if wrong is not None:
        raise ModelError(f"a name in the model is no text: {wrong!r}; export it again")


def _check_functions(model: onnx.ModelProto) -> None:
    names = Counter((f.domain, f.name, f.overload) for f in model.functions)
    for (domain, name, _), count in names.items():
        if count > 1:
            raise ModelError(
                f"the model declares the function '{domain}.{name}' twice; remove one of them"
            )
        if domain in STANDARD_DOMAINS and defs.has(name, domain=""):
            raise ModelError(
                f"the model-local function '{name}' has the name and domain of a standard "
                "operator, and runtimes differ in which of the two they run; give it a domain of "
                "its own"
            )
    calls = {
        (f.domain, f.name, f.overload): [(n.domain, n.op_type, n.overload) for n in _nested(f.node)]
        for f in model.functions
    }
    sizes: dict[tuple[str, str, str], int] = {}
    for start in calls:
        pending, open_calls = [start], set[tuple[str, str, str]]()
        while pending:
            key = pending[-1]
            inner = [each for each in calls[key] if each in calls]
            if key in sizes:
                pending.pop()
            elif all(each in sizes for each in inner):
                sizes[key] = len(calls[key]) + sum(sizes[each] for each in inner)
                open_calls.discard(key)
                pending.pop()
            elif key in open_calls:
                raise ModelError(
                    f"the model-local function '{key[0]}.{key[1]}' calls itself, directly or "
                    "through others; functions must not be recursive"
                )
            else:
                open_calls.add(key)
                pending += [each for each in dict.fromkeys(inner) if each not in sizes]
    total = sum(sizes.get((n.domain, n.op_type, n.overload), 1) for n in _nested(model.graph.node))
    if total > MOST_NODES:
        raise ModelError(
            f"the model's functions stand for {total} nodes, more than {MOST_NODES}; "
            "export it without functions that call each other"
        )


def _nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        pending += [inner for _, body in bodies(node) for inner in body.node]


def check_tensor(tensor: onnx.TensorProto) -> None:
    """Refuse a tensor of an impossible type or shape, or whose data do not match them.

    The data may still be in another file.

    Raises
    ------
    ModelError
        Names the tensor.
    """
    place = f"tensor '{tensor.name}'"
    if isinstance(tensor.name, bytes):
        raise ModelError(f"a name in the model is no text: {tensor.name!r}; export it again")
    kind = _KINDS.get(tensor.data_type, "UNDEFINED")
    if kind == "UNDEFINED":
        raise ModelError(
            f"{place} is of an unknown type ({tensor.data_type}); export it again, or install a "
            "newer onnx"
        )
    dims = list(tensor.dims)
    count = math.prod(dims)
    if len(dims) > MOST_AXES or any(size < 0 for size in dims) or count > MOST_ELEMENTS:
        shown = str(dims) if len(dims) <= 8 else f"of {len(dims)} axes"
        raise ModelError(f"{place} has impossible dimensions, {shown}; export it again")
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    if tensor.HasField("segment"):
        raise ModelError(f"{place} is in segments, which no runtime reads; export it again")
    lengths = {field: len(getattr(tensor, field)) for field in _ALL_FIELDS}
    found = {field: length for field, length in lengths.items() if length}
    field = _FIELDS.get(kind, "int32_data")
    if "raw_data" in found and kind != "STRING":
        field, needed = "raw_data", tensor_bytes(tensor)
    elif kind.startswith("COMPLEX"):
        needed = 2 * count
    elif field == "int32_data" and tensor_bytes(tensor) < count:
        needed = tensor_bytes(tensor)  # of less than 8 bits: two or more in a byte
    else:
        needed = count
    if found != ({field: needed} if needed else {}):
        said = ", ".join(f"{number} in {name}" for name, number in found.items()) or "nothing"
        unit = "bytes" if field == "raw_data" else "values"
        raise ModelError(
            f"{place} holds {said}, but its type {kind} and shape {dims} ask for {needed} {unit} "
            f"in {field}; export it again"
        )


def _check_value(value: onnx.ValueInfoProto) -> None:
    if not value.type.HasField("tensor_type"):
        return
    tensor = value.type.tensor_type
    if tensor.elem_type not in TensorProto.DataType.values():
        raise ModelError(
            f"tensor '{value.name}' is of an unknown type ({tensor.elem_type}); export it again"
        )
    sizes = [dim.dim_value for dim in tensor.shape.dim if dim.dim_value > 0]
    if math.prod(sizes) > MOST_ELEMENTS or len(tensor.shape.dim) > MOST_AXES:
        shown = "x".join(map(str, sizes[:8]))
        raise ModelError(
            f"tensor '{value.name}' has impossible dimensions, {shown}: no memory holds it; "
            "export the model with other sizes"
        )


def _check_version(model: onnx.ModelProto) -> None:
    known = defs.onnx_opset_version()
    for each in model.opset_import:
        if each.domain in STANDARD_DOMAINS and each.version > known:
            raise ModelError(
                f"the model is of opset {each.version}, and the installed onnx knows opsets up to "
                f"{known}; export it with one of these, or install a newer onnx"
            )


def _check_typed(graph: onnx.GraphProto) -> None:
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {tensor.values.name for tensor in graph.sparse_initializer}
    for value in graph.input:
        if value.type.WhichOneof("value") is None and value.name not in constant:
            raise ModelError(f"the model's input '{value.name}' has no type; export it again")


def _check_references(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise ModelError(
                f"attribute '{attribute.name}' of node '{_place(node)}' refers to one of a "
                "function, but is in none; export it again"
            )


def _check_auto_pad(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    if attribute.s not in _AUTO_PADS:
        given = attribute.s.decode(errors="replace")
        raise ModelError(
            f"node '{_place(node)}' ({node.op_type}) has the auto_pad '{given[:40]}'; it takes "
            "NOTSET, VALID, SAME_UPPER or SAME_LOWER"
        )


def _check_sizes(node: onnx.NodeProto) -> None:
    if node.domain not in _WINDOWED:
        return
    for attribute in node.attribute:
        if attribute.name == "auto_pad" and not attribute.ref_attr_name:
            _check_auto_pad(node, attribute)
        values = [attribute.i] if attribute.type == attribute.INT else attribute.ints
        if attribute.ref_attr_name or attribute.name not in _POSITIVE | _BOUNDED:
            continue
        least = 1 if attribute.name in _POSITIVE else -_INT32
        wrong = next((value for value in values if not least <= value <= _INT32), None)
        if wrong is not None:
            raise ModelError(
                f"node '{_place(node)}' ({node.op_type}) has {wrong} in its attribute "
                f"'{attribute.name}', which takes {least} to {_INT32}; export it again"
            )
