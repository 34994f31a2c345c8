"""Bodies of the portable nodes: one model-local function of standard ops per custom op.

One function serves every node of its op, because the body refers to the node's attributes. The function's attributes have no
defaults, as not every runtime applies them: a node writes all of them.
"""

from __future__ import annotations

from onnx import FunctionProto, NodeProto, helper

from onnx_lowrank.errors import ModelError

DOMAIN = "onnx_lowrank"
VERSION = 1

_WINDOW = ("strides", "dilations", "pads")
_ACTIVATION = ("min", "max", "alpha")
_FLOATS = {"min", "max", "alpha", "beta", "bias"}
_LISTS = {"strides", "dilations", "pads"}


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


def functions(opset: int) -> dict[str, FunctionProto]:
    """Return the function of every op, by op name.

    Parameters
    ----------
    opset : int
        Version of the main ONNX domain that the model imports; 12 or newer (the bodies use Constant's ``value_float``).

    Returns
    -------
    dict of str to onnx.FunctionProto
        ``MonochromaticConv``, ``Tucker2Conv``, ``CPConv`` and ``LRN``, domain ``onnx_lowrank``.

    Raises
    ------
    ModelError
        If `opset` is older than 12.
    """
    if opset < 12:
        raise ModelError(
            f"portable nodes need opset 12, the model has {opset}; convert the model first"
        )
    return {
        "MonochromaticConv": _function(
            "MonochromaticConv",
            ["X", "colours", "filters", "bias", "order"],
            [
                helper.make_node("Conv", ["X", "colours"], ["planes"]),
                _conv(["planes", "filters", "bias"], "sorted", group="colours", window=True),
                *_activation("sorted", "active"),
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
        *_activation("sorted", "active"),
        helper.make_node("Gather", ["active", "output_order"], ["Y"], axis=1),
    ]
    inputs = ["X", "input_order", "A", core, "middle_order", "B", "bias", "output_order"]
    return _function(op, inputs, nodes, opset)


def _conv(inputs: list[str], output: str, *, group: str, window: bool = False) -> NodeProto:
    node = helper.make_node("Conv", inputs, [output])
    return _refer(node, group=group, **({name: name for name in _WINDOW} if window else {}))


def _activation(source: str, target: str) -> list[NodeProto]:
    """Clip to [min, max], then PRelu; not LeakyRelu, whose attribute onnx's ReferenceEvaluator cannot link."""
    nodes = []
    for bound in _ACTIVATION:
        node = helper.make_node("Constant", [], [bound])
        nodes.append(_refer(node, value_float=bound))
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
