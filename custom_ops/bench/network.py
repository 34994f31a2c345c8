"""A whole network to time, zfnet512 with random weights, and its two rewritten forms.

How fast it is depends on the structure alone: factors of random values stand for fitted ones, so
that the benchmark needs no download, no data and no fit where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.pipelines.plans import resolve_plan
from onnx_lowrank.rewriting.form import Form, Replacement
from onnx_lowrank.rewriting.forms import PORTABLE, STANDARD
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.search.synthetic import synthetic_fits

SIDE, CLASSES = 224, 1000
PLAN = (
    "conv1=mono:C=6",
    "conv2=bicluster-outer:G=48,H=2,K=8",
    "conv3=bicluster-outer:G=128,H=4,K=6",
    "conv4=bicluster-outer:G=256,H=8,K=4",
    "fc1=svd:R=250",
    "fc2=svd:R=350",
)
_LRN = {"size": 5, "alpha": 5e-4, "beta": 0.75, "bias": 2.0}


def zfnet512(rng: np.random.Generator) -> ModelProto:
    """Return zfnet512 of any batch, weights normal with variance ``2 / fan_in``."""
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []

    def add(op: str, name: str, constants: Mapping[str, Any], **attributes: Any) -> None:
        stored = [numpy_helper.from_array(v, f"{name}_{key}") for key, v in constants.items()]
        weights.extend(stored)
        last = nodes[-1].output[0] if nodes else "data"
        inputs = [last, *(tensor.name for tensor in stored)]
        nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name, **attributes))

    def layer(op: str, name: str, shape: tuple[int, ...], **attributes: Any) -> None:
        weight = rng.standard_normal(shape, np.float32) * np.float32(
            np.sqrt(2 / np.prod(shape[1:]))
        )
        add(op, name, {"w": weight, "b": np.zeros(shape[0], np.float32)}, **attributes)

    def conv(name: str, shape: tuple[int, ...], stride: int, pad: int) -> None:
        window = {"kernel_shape": shape[2:], "strides": [stride] * 2, "pads": [pad] * 4}
        layer("Conv", name, shape, **window)
        add("Relu", f"{name}_relu", {})

    def pool(name: str, size: int) -> None:
        add("MaxPool", name, {}, kernel_shape=[size] * 2, strides=[2, 2], pads=[0] * 4)

    conv("conv1", (96, 3, 7, 7), 2, 0)
    add("LRN", "lrn1", {}, **_LRN)
    pool("pool1", 3)
    conv("conv2", (256, 96, 5, 5), 2, 0)
    add("LRN", "lrn2", {}, **_LRN)
    pool("pool2", 3)
    conv("conv3", (512, 256, 3, 3), 1, 1)
    conv("conv4", (512, 512, 3, 3), 1, 1)
    conv("conv5", (512, 512, 3, 3), 1, 1)
    pool("pool5", 2)
    add("Reshape", "flat", {"shape": np.array([-1, 18432])})
    for name, shape in (("fc1", (4096, 18432)), ("fc2", (1024, 4096)), ("fc3", (CLASSES, 1024))):
        layer("Gemm", name, shape, transB=1)
        if name != "fc3":
            add("Relu", f"{name}_relu", {})
    add("Softmax", "softmax", {})
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in (("data", [3, SIDE, SIDE]), ("softmax_y", [CLASSES]))
    ]
    graph = helper.make_graph(nodes, "zfnet512", values[:1], values[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def rewritten(original: ModelProto, *, portable: bool) -> ModelProto:
    """Return a network rewritten by `PLAN` with random factors, as `compress` would lower it."""
    chosen = resolve_plan(find_layers(original), PLAN).chosen
    model, _ = normalised(original, chosen)
    form: Form = PORTABLE if portable else STANDARD
    replacements = {}
    for each in find_layers(model):
        if each.name in chosen and each.spec is not None:
            (fit,) = synthetic_fits(each.name, chosen[each.name], each.spec)
            replacements[each.name] = Replacement(fit.factors, fit.bias, form)
    return replace_layers(model, replacements, forms=(form,))[0]
