"""Write out what a Conv leaves to defaults."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import onnx
from onnx import helper

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.layers import attribute, find_layers
from onnx_lowrank.rewriting.passes.base import PassResult, Refusal


class NormalizeConvPass:
    """Make the attributes of the selected Convs explicit.

    1. Omitted kernel_shape, strides, dilations, pads and group are written out.
    2. ``auto_pad`` becomes explicit pads where they are the same for every input: VALID, and
       SAME_UPPER or SAME_LOWER with stride 1 or an input size that the model fixes.

    Refused: SAME with a stride and an open input size; its pads differ from input to input.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name: ClassVar[str] = "normalize-conv"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        changes, refusals = [], []
        # By the model's own sizes, not by those a user names: the pads must hold for all inputs.
        for layer in find_layers(model):
            if layer.name not in self.layers or layer.op != "Conv" or layer.spec is None:
                continue
            conv = layer.spec
            wanted: dict[str, int | list[int]] = {
                "kernel_shape": list(conv.kernel),
                "strides": list(conv.strides),
                "dilations": list(conv.dilations),
                "group": conv.group,
            }
            pads = explicit_pads(conv)
            if pads is None:
                refusals.append(
                    Refusal(
                        layer.name,
                        f"{conv.auto_pad} stays: its pads depend on the input size, "
                        "which the model leaves open",
                    )
                )
            else:
                wanted["pads"] = list(pads)
            if _write(layer.node, wanted):
                changes.append(f"{layer.name}: attributes written out")
        return PassResult(bool(changes), tuple(changes), tuple(refusals))


def _write(node: onnx.NodeProto, wanted: dict[str, int | list[int]]) -> bool:
    """Set attributes, and drop auto_pad where pads are set; return whether anything changed."""
    auto = [i for i, each in enumerate(node.attribute) if each.name == "auto_pad"]
    modified = False
    if auto and "pads" in wanted and attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        del node.attribute[auto[0]]
        modified = True
    for name, value in wanted.items():
        if attribute(node, name, None) == value:
            continue
        for index, each in enumerate(node.attribute):
            if each.name == name:
                del node.attribute[index]
                break
        node.attribute.append(helper.make_attribute(name, value))
        modified = True
    return modified


def explicit_pads(conv: ConvSpec) -> tuple[int, ...] | None:
    """Return the pads that ``auto_pad`` stands for.

    Returns
    -------
    tuple of int or None
        Begin of every axis, then end of every axis; None where they depend on an unknown size.
    """
    axes = len(conv.kernel)
    if conv.auto_pad == "NOTSET":
        return conv.pads
    if conv.auto_pad == "VALID":
        return (0,) * (2 * axes)
    totals = []
    for axis in range(axes):
        extent = conv.dilations[axis] * (conv.kernel[axis] - 1) + 1
        stride = conv.strides[axis]
        if stride == 1:
            totals.append(extent - 1)
        elif conv.input_size is None:
            return None
        else:
            size = conv.input_size[axis]
            totals.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
    # Of an odd number SAME_UPPER puts one more at the end, SAME_LOWER one more at the begin.
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return tuple(small + large if conv.auto_pad == "SAME_UPPER" else large + small)
