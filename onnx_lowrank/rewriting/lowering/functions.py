"""Bodies of the portable nodes: one model-local function of standard ops per custom op.

One function serves every node of its op, because the body refers to the node's attributes. The
function's attributes have no defaults, as not every runtime applies them: a node writes all of
them.
"""

from __future__ import annotations

from onnx import FunctionProto, ModelProto, NodeProto, helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.edit import opset_version
from onnx_lowrank.graph.ops import is_op

DOMAIN = "onnx_lowrank"
VERSION = 1
OLDEST_OPSET = 7  # the oldest that onnxruntime runs
_CAST_LIKE_OPSET = 15
_FUNCTIONS_IR = 8  # the first IR with model-local functions
_CONSTANT_INPUTS_IR = 4  # below, every initializer is listed among the inputs

_WINDOW = ("strides", "dilations", "pads")
_ACTIVATION = ("min", "max", "alpha")
_FLOATS = {"min", "max", "alpha", "beta", "bias"}
_LISTS = {"strides", "dilations", "pads"}
ACTIVATING = ("MonochromaticConv", "Tucker2Conv", "CPConv")
"""Ops whose nodes have an activation of their own."""
OPS = (*ACTIVATING, "LRN")


def attribute_names(op: str) -> tuple[str, ...]:
    """Return the attributes that a node of `op` must carry.

    Raises
    ------
    KeyError
        If `op` is not an op of this domain.
    """
    return {
        "MonochromaticConv": ("colours", *_WINDOW, *_ACTIVATION),
        "Tucker2Conv": ("input_groups", "blocks", "output_groups", *_WINDOW, *_ACTIVATION),
        "CPConv": ("input_groups", "channels", "output_groups", *_WINDOW, *_ACTIVATION),
        "LRN": ("size", "alpha", "beta", "bias"),
    }[op]


def can_activate(opset: int) -> bool:
    """Whether bodies in this opset have the node's activation; without it a node must not.

    Up to opset 10 Clip has its bounds as attributes, from 12 on Constant makes inputs of them;
    opset 11 knows no way from a function's float attribute to an input.
    """
    return opset != 11


def declare_functions(model: ModelProto) -> None:
    """Add to a model what its nodes of this domain need: functions, the import, and the IR.

    Below IR 4 the initializers are taken off the list of inputs, where newer IRs would take them
    for defaults that a caller may replace; older ones take them for constants.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place, unless no node of its main graph is of this domain.

    Raises
    ------
    ModelError
        If the model's opset is older than 7.
    """
    used = {op for op in OPS for node in model.graph.node if is_op(node, op, domain=DOMAIN)}
    present = {each.name for each in model.functions if each.domain == DOMAIN}
    if not used:
        return
    bodies = functions(opset_version(model))
    model.functions.extend(bodies[op] for op in sorted(used - present))
    if DOMAIN not in {each.domain for each in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    if model.ir_version < _CONSTANT_INPUTS_IR:
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _FUNCTIONS_IR)


def functions(opset: int) -> dict[str, FunctionProto]:
    """Return the function of every op, by op name.

    Parameters
    ----------
    opset : int
        Version of the main ONNX domain that the model imports, 7 or newer.

    Returns
    -------
    dict of str to onnx.FunctionProto
        ``MonochromaticConv``, ``Tucker2Conv``, ``CPConv`` and ``LRN``, domain ``onnx_lowrank``.

    Raises
    ------
    ModelError
        If `opset` is older than 7.
    """
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"portable nodes need opset {OLDEST_OPSET}, the model has {opset}; convert the model, "
            "or use the standard lowering"
        )
    return {
        "MonochromaticConv": _function(
            "MonochromaticConv",
            ["X", "colours", "filters", "bias", "order"],
            [
                helper.make_node("Conv", ["X", "colours"], ["planes"]),
                _conv(["planes", "filters", "bias"], "sorted", group="colours", window=True),
                *_activation("sorted", "active", opset),
                helper.make_node("Gather", ["active", "order"], ["Y"], axis=1),
            ],
            opset,
        ),
        "Tucker2Conv": _blocks("Tucker2Conv", "core", "blocks", opset),
        "CPConv": _blocks("CPConv", "depthwise", "channels", opset),
        "LRN": _function(
            "LRN",
            ["X"],
            [
                _refer(
                    helper.make_node("LRN", ["X"], ["Y"]),
                    size="size",
                    alpha="alpha",
                    beta="beta",
                    bias="bias",
                )
            ],
            opset,
        ),
    }


def _blocks(op: str, core: str, group: str, opset: int) -> FunctionProto:
    nodes = [
        helper.make_node("Gather", ["X", "input_order"], ["ordered"], axis=1),
        _conv(["ordered", "A"], "reduced", group="input_groups"),
        _conv(["reduced", core], "blocked", group=group, window=True),
        helper.make_node("Gather", ["blocked", "middle_order"], ["regrouped"], axis=1),
        _conv(["regrouped", "B", "bias"], "sorted", group="output_groups"),
        *_activation("sorted", "active", opset),
        helper.make_node("Gather", ["active", "output_order"], ["Y"], axis=1),
    ]
    inputs = ["X", "input_order", "A", core, "middle_order", "B", "bias", "output_order"]
    return _function(op, inputs, nodes, opset)


def _conv(inputs: list[str], output: str, *, group: str, window: bool = False) -> NodeProto:
    node = helper.make_node("Conv", inputs, [output])
    return _refer(node, group=group, **({name: name for name in _WINDOW} if window else {}))


def _activation(source: str, target: str, opset: int) -> list[NodeProto]:
    """Clip to [min, max], then a slope for what is below zero.

    PRelu rather than LeakyRelu where an input can have the slope: onnx's ReferenceEvaluator cannot
    link LeakyRelu's attribute to the function's.
    """
    if not can_activate(opset):
        return [helper.make_node("Identity", [source], [target])]
    if opset < 11:
        clip = helper.make_node("Clip", [source], ["clipped"])
        slope = helper.make_node("LeakyRelu", ["clipped"], [target])
        return [_refer(clip, min="min", max="max"), _refer(slope, alpha="alpha")]
    nodes = []
    for bound in _ACTIVATION:
        typed = opset >= _CAST_LIKE_OPSET
        constant = f"{bound}_float" if typed else bound
        nodes.append(_refer(helper.make_node("Constant", [], [constant]), value_float=bound))
        if typed:  # float16 and bfloat16 nodes have bounds of their own type
            nodes.append(helper.make_node("CastLike", [constant, source], [bound]))
    nodes.append(helper.make_node("Clip", [source, "min", "max"], ["clipped"]))
    nodes.append(helper.make_node("PRelu", ["clipped", "alpha"], [target]))
    return nodes


def _refer(node: NodeProto, **attributes: str) -> NodeProto:
    """Make attributes of `node` refer to attributes of the function."""
    for name, source in attributes.items():
        attribute = node.attribute.add()
        attribute.name = name
        attribute.ref_attr_name = source
        if source in _LISTS:
            attribute.type = attribute.INTS
        elif source in _FLOATS:
            attribute.type = attribute.FLOAT
        else:
            attribute.type = attribute.INT
    return node


def _function(op: str, inputs: list[str], nodes: list[NodeProto], opset: int) -> FunctionProto:
    return helper.make_function(
        DOMAIN,
        op,
        inputs,
        ["Y"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes=list(attribute_names(op)),
    )
