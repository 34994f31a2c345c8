"""Repairs of models that onnxruntime runs and onnx's checker refuses: people cannot export again.

A repair changes nothing of what a model computes, and leaves a note.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import helper, shape_inference

from onnx_lowrank.graph.check import LARGE
from onnx_lowrank.graph.ops import STANDARD_DOMAINS
from onnx_lowrank.graph.order import sort_nodes
from onnx_lowrank.graph.without_weights import bodies, split_weights

_IMPORTS_IR = 3  # below, no domain is imported
_CONSTANT_INPUTS_IR = 4  # below, every initializer is listed among the inputs


def repair(model: onnx.ModelProto) -> list[str]:
    """Repair a model in place.

    1. The standard domain, also spelt ``ai.onnx``, gets its one name; of two imports of one domain
       the last holds, as in onnxruntime.
    2. Domains that nodes use and the model does not import are imported: the standard one in the
       version of the model's IR, others in version 1.
    3. A graph without a name is called ``graph``; initializers without a name are dropped.
    4. Equal initializers of one name are there once; of metadata of one key the last holds, as in
       onnxruntime. Initializers of one name that differ stay: the checker refuses them.
    5. A model with imports is of IR 3 at least: older ones have none.
    6. Below IR 4, initializers that are no inputs are listed among them, as those IRs demand.
    7. A negative size means an open one.
    8. Nodes are brought into topological order, in bodies and functions too.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    list of str
        What was repaired, a sentence each.

    Raises
    ------
    ModelError
        Nodes form a circle.
    """
    repairs: tuple[Callable[[onnx.ModelProto], list[str]], ...] = (
        _spell_domain,
        _import_domains,
        _name_graph,
        _drop_duplicates,
        _raise_ir,
        _list_weights,
        _open_sizes,
        _sort,
    )
    return [note for each in repairs for note in each(model)]


def drop_stale_shapes(model: onnx.ModelProto) -> list[str]:
    """Drop shapes that the model notes and inference contradicts.

    1. Of inner tensors: the note goes.
    2. Of outputs: the sizes that differ are left open; a shape of another rank, or one that is
       missing, becomes the one inferred.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    list of str
        What was dropped, a sentence each.
    """
    light, _ = split_weights(model, above=LARGE)
    del light.graph.value_info[:]
    for value in light.graph.output:
        value.ClearField("type")
    try:
        inferred = shape_inference.infer_shapes(light).graph
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return []  # something else is wrong
    found = {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.output)}
    stale = [
        value.name
        for value in model.graph.value_info
        if value.name in found and _contradicts(value.type, found[value.name])
    ]
    notes = []
    if stale:
        kept = [value for value in model.graph.value_info if value.name not in stale]
        del model.graph.value_info[:]
        model.graph.value_info.extend(kept)
        notes.append(f"shapes noted for inner tensors were wrong and are dropped ({_some(stale)})")
    wrong = [
        value.name
        for value in model.graph.output
        if value.name in found and _correct_output(value, found[value.name])
    ]
    if wrong:
        notes.append(f"shapes of outputs were wrong or missing and are inferred ({_some(wrong)})")
    return notes


def drop_inner_shapes(model: onnx.ModelProto) -> list[str]:
    """Drop all shapes noted for tensors inside bodies: inference does not say which are wrong.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    list of str
        What was dropped, a sentence.
    """
    noted = [graph for graph in _graphs(model)[1:] if graph.value_info]
    for graph in noted:
        del graph.value_info[:]
    return ["shapes noted for tensors inside bodies were wrong and are dropped"] if noted else []


def drop_unused_functions(model: onnx.ModelProto) -> list[str]:
    """Drop functions that no node calls: runtimes do not look into them.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    list of str
        What was dropped, a sentence.
    """
    names = []
    while True:
        nodes = [node for graph in _graphs(model) for node in graph.node]
        nodes += [node for function in model.functions for node in function.node]
        called = {(node.domain, node.op_type, node.overload) for node in nodes}
        unused = [
            place
            for place, each in enumerate(model.functions)
            if (each.domain, each.name, each.overload) not in called
        ]
        if not unused:
            break
        names += _delete(model.functions, unused, "name")
    return [f"functions that no node calls were dropped ({_some(names)})"] if names else []


def _contradicts(said: onnx.TypeProto, found: onnx.TypeProto.Tensor) -> bool:
    if not said.HasField("tensor_type") or not found.elem_type:
        return False
    if said.tensor_type.elem_type not in (0, found.elem_type):
        return True
    if not (said.tensor_type.HasField("shape") and found.HasField("shape")):
        return False
    ours, theirs = said.tensor_type.shape.dim, found.shape.dim
    return len(ours) != len(theirs) or any(map(_differ, ours, theirs))


def _differ(ours: onnx.TensorShapeProto.Dimension, theirs: onnx.TensorShapeProto.Dimension) -> bool:
    both = ours.HasField("dim_value") and theirs.HasField("dim_value")
    return both and ours.dim_value != theirs.dim_value


def _correct_output(value: onnx.ValueInfoProto, found: onnx.TypeProto.Tensor) -> bool:
    """Correct the shape of an output by what is inferred; return whether anything changed."""
    if not found.elem_type or not found.HasField("shape"):
        return False
    if value.type.WhichOneof("value") not in (None, "tensor_type"):
        return False
    tensor = value.type.tensor_type
    if tensor.elem_type == 0:
        tensor.elem_type = found.elem_type
    if not tensor.HasField("shape") or len(tensor.shape.dim) != len(found.shape.dim):
        tensor.shape.CopyFrom(found.shape)
        return True
    changed = False
    for ours, theirs in zip(tensor.shape.dim, found.shape.dim, strict=True):
        if _differ(ours, theirs):
            ours.ClearField("dim_value")
            changed = True
    return changed


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _spell_domain(model: onnx.ModelProto) -> list[str]:
    notes = []
    nodes = [node for graph in _graphs(model) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    holders = (model, *model.functions)
    imports = [each for holder in holders for each in holder.opset_import]
    spelt = [each for each in (*nodes, *imports) if each.domain == "ai.onnx"]
    if spelt:
        for each in spelt:
            each.domain = ""
        notes.append("the standard domain was spelt 'ai.onnx' and is spelt '' now")
    for holder in holders:
        versions = {each.domain: each.version for each in holder.opset_import}
        if len(versions) < len(holder.opset_import):
            del holder.opset_import[:]
            holder.opset_import.extend(helper.make_opsetid(d, v) for d, v in versions.items())
            notes.append("a domain was imported twice; the last version holds")
    return notes


def _import_domains(model: onnx.ModelProto) -> list[str]:
    used = {node.domain for graph in _graphs(model, functions=False) for node in graph.node}
    if model.ir_version < 3 and not model.opset_import:
        return []  # those IRs have no imports
    missing = sorted(used - {each.domain for each in model.opset_import})
    notes = []
    for domain in missing:
        version = 1 if domain not in STANDARD_DOMAINS else _newest_opset(model.ir_version)
        model.opset_import.append(helper.make_opsetid(domain, version))
        notes.append(f"the domain '{domain}' was not imported and is, in version {version}")
    return notes


def _newest_opset(ir_version: int) -> int:
    """Return the newest version of the standard operators released with an IR."""
    versions = [row[2] for row in helper.VERSION_TABLE if row[1] <= ir_version]
    return int(max(versions, default=1))


def _name_graph(model: onnx.ModelProto) -> list[str]:
    notes = []
    if not model.graph.name:
        model.graph.name = "graph"
        notes.append("the graph had no name and is called 'graph'")
    unnamed = [i for i, tensor in enumerate(model.graph.initializer) if not tensor.name]
    if _delete(model.graph.initializer, unnamed, "name"):
        notes.append("initializers without a name were dropped: nothing can read them")
    return notes


def _drop_duplicates(model: onnx.ModelProto) -> list[str]:
    notes = []
    first: dict[str, onnx.TensorProto] = {}
    twice = [
        index
        for index, tensor in enumerate(model.graph.initializer)
        if first.setdefault(tensor.name, tensor) is not tensor and first[tensor.name] == tensor
    ]
    if names := _delete(model.graph.initializer, twice, "name"):
        notes.append(f"initializers were there twice and are once now ({_some(names)})")
    last = {each.key: index for index, each in enumerate(model.metadata_props)}
    older = [i for i, each in enumerate(model.metadata_props) if last[each.key] != i]
    if names := _delete(model.metadata_props, older, "key"):
        notes.append(f"metadata were there twice and the last holds ({_some(names)})")
    return notes


def _delete(field: Any, places: list[int], key: str) -> list[str]:
    """Delete elements of a repeated field; return their names."""
    names = [str(getattr(field[place], key)) for place in places]
    for place in reversed(places):
        del field[place]
    return names


def _raise_ir(model: onnx.ModelProto) -> list[str]:
    old = model.ir_version
    if not model.HasField("ir_version") or old >= _IMPORTS_IR or not model.opset_import:
        return []
    model.ir_version = _IMPORTS_IR
    return [f"IR {old} has no imports of operators, and this model has: it is IR {_IMPORTS_IR} now"]


def _list_weights(model: onnx.ModelProto) -> list[str]:
    if model.ir_version >= _CONSTANT_INPUTS_IR:
        return []
    known = {value.name for value in model.graph.input}
    missing = [tensor for tensor in model.graph.initializer if tensor.name not in known]
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in missing
    )
    names = [str(tensor.name) for tensor in missing]
    why = f"IR {model.ir_version} asks for initializers among the inputs"
    return [f"{why}, and they are listed there now ({_some(names)})"] if names else []


def _open_sizes(model: onnx.ModelProto) -> list[str]:
    names: dict[str, None] = {}
    for graph in _graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.ClearField("dim_value")
                    names[value.name] = None
    return [f"negative sizes mean open ones, and are open now ({_some([*names])})"] if names else []


def _graphs(model: onnx.ModelProto, *, functions: bool = True) -> list[onnx.GraphProto]:
    """Return the main graph and every body, those in functions too if asked."""
    found = [model.graph]
    if functions:
        found += [g for f in model.functions for node in f.node for _, g in bodies(node)]
    for graph in found:  # grows: bodies within bodies are visited too
        found += [body for node in graph.node for _, body in bodies(node)]
    return found


def _sort(model: onnx.ModelProto) -> list[str]:
    # Inner graphs come later in the list: a graph copied into order holds sorted bodies.
    holders: list[Any] = [*_graphs(model)[::-1], *model.functions]
    changed = [sort_nodes(holder.node) for holder in holders]
    return ["nodes were out of order and are sorted"] if any(changed) else []
