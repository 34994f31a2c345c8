"""Write out what a Conv leaves to defaults."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.passes.base import PassResult, Refusal


class NormalizeConvPass:
    """Make the attributes of Convs explicit.

    1. Omitted kernel_shape, strides, dilations, pads and group are written out.
    2. ``auto_pad`` becomes explicit pads where they do not depend on an unknown input size: VALID, and SAME with stride 1
       or a known size. Elsewhere it stays, with the reason: the pads differ from input to input.

    Parameters
    ----------
    layers : collection of str
        The layers to touch.
    """

    name = "normalize-conv"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        changes, refusals = [], []
        for layer in find_layers(model):
            if layer.name not in self.layers or layer.op != "Conv" or layer.spec is None:
                continue
            conv = layer.spec
            wanted: dict[str, object] = {
                "kernel_shape": list(conv.kernel),
                "strides": list(conv.strides),
                "dilations": list(conv.dilations),
                "group": conv.group,
            }
            pads = explicit_pads(conv)
            if pads is None:
                wanted["auto_pad"] = conv.auto_pad
                refusals.append(
                    Refusal(layer.name, f"{conv.auto_pad} pads depend on the input size, which is not known")
                )
            else:
                wanted["pads"] = list(pads)
            before = {a.name: helper.get_attribute_value(a) for a in layer.node.attribute}
            if {k: list(v) if isinstance(v, list | tuple) else v for k, v in before.items()} == wanted:
                continue
            if pads is None and set(before) >= set(wanted):
                continue
            del layer.node.attribute[:]
            layer.node.attribute.extend(helper.make_attribute(k, v) for k, v in wanted.items())
            changes.append(f"{layer.name}: attributes written out")
        return PassResult(bool(changes), tuple(changes), tuple(refusals))


def explicit_pads(conv: ConvSpec) -> tuple[int, ...] | None:
    """Return the pads of every axis, begins then ends, or None where they depend on an unknown size."""
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
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return tuple(small + large if conv.auto_pad == "SAME_UPPER" else large + small)
