"""Random networks whose weights have an exact low rank, and plans at that rank that lose nothing.

Drawn are the kinds of structure that a rewriting can get wrong: shared weights, residual sums,
splits, several outputs, bodies of If and Loop, model-local functions (some named like standard
ops), open and zero sizes, float16 and double, weights behind DequantizeLinear, Cast, Transpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Draw = Any
RANK = 2
SCHEMES = {
    "tucker2": f"tucker2:R1={RANK},R2={RANK}",
    "svd-pair": f"bicluster-svd:G=1,H=1,K1={RANK},K2={RANK}",
    "spatial": f"spatial:R={RANK}",
    "channel": f"channel:R={RANK}",
    "mono": "mono:C=2",
    "svd": f"svd:R={RANK}",
}


@dataclass
class Network:
    """A network under construction.

    Attributes
    ----------
    plan : dict of str to str
        Layer name -> scheme at the rank of its weight.
    """

    draw: Draw
    rng: np.random.Generator
    kind: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    plan: dict[str, str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    ranks: dict[str, int] = field(default_factory=dict)
    shared: dict[tuple[int, ...], tuple[str, str]] = field(default_factory=dict)
    count: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the activations."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.kind))

    def name(self, stem: str) -> str:
        """Return a name that no tensor or node has yet."""
        self.count += 1
        return f"{stem}{self.count}"

    def add(self, op: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """Append a node with one output and return that."""
        output = self.name("t")
        made = helper.make_node(op, inputs, [output], self.name(op.lower()), **attributes)
        made.domain = domain
        self.nodes.append(made)
        return output

    def constant(self, value: Array) -> str:
        """Cache a value and return its name."""
        name = self.name("w")
        self.weights.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def stored(self, value: Array) -> str:
        """Cache a weight in one of the ways that files have, and return the tensor to read."""
        way = self.draw(st.sampled_from(["plain"] * 4 + ["node", "transposed", "half", "int8"]))
        if way == "node":
            return self.add("Constant", [], value=numpy_helper.from_array(value, ""))
        if way == "transposed":
            axes = list(range(value.ndim))[::-1]
            return self.add("Transpose", [self.constant(value.transpose(axes))], perm=axes)
        if way == "half" and value.dtype == np.float32:
            # Small integers times powers of two: nothing is lost.
            return self.add("Cast", [self.constant(value.astype(np.float16))], to=self.kind)
        if way == "int8" and value.dtype == np.float32 and np.abs(value * 64).max() < 128:
            whole = (value * 64).astype(np.int8)
            if np.array_equal(whole, value * 64):
                scale = self.constant(np.float32(1 / 64))
                return self.add("DequantizeLinear", [self.constant(whole), scale])
        return self.constant(value)

    def low_rank(self, shape: tuple[int, ...], scheme: str) -> Array:
        """Return a weight that a scheme gives exactly: multiples of 1/64, exact in 16 bits."""

        def factor(*sizes: int) -> Array:
            # Of -1, 0 and 1, layers often cancel each other: what is left is rounding.
            return self.rng.integers(-5, 6, sizes).astype(np.float64)

        f, c, *kernel = shape
        spatial = tuple(kernel)
        if scheme in ("svd", "channel"):
            value = np.einsum("fr,rx->fx", factor(f, RANK), factor(RANK, c * int(np.prod(spatial))))
        elif scheme == "spatial":
            x, y = spatial
            value = np.einsum("fyr,rcx->fcxy", factor(f, y, RANK), factor(RANK, c, x))
        elif scheme == "mono":
            # Half of the filters, in any order, have one colour, and half another.
            colours = np.array([np.ones(c), np.arange(c) % 2])
            mine = self.rng.permutation(np.arange(f) % 2)
            taps = factor(f, int(np.prod(spatial)))
            taps[:, 0] = 1  # a filter without taps has no colour
            value = np.einsum("fc,fx->fcx", colours[mine], taps)
        else:
            core = factor(RANK, RANK, int(np.prod(spatial)))
            value = np.einsum("fr,rsx,sc->fcx", factor(f, RANK), core, factor(RANK, c))
        return (value.reshape(shape) / 64).astype(self.dtype)


def _conv(net: Network, x: str, channels: int) -> tuple[str, int]:
    draw = net.draw
    group = draw(st.sampled_from([1, 1, 1, 2])) if channels % 2 == 0 else 1
    out = draw(st.sampled_from([4, 6, 8]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 1), (2, 3)]))
    shape = (out, channels // group, *kernel)
    possible = ["svd"]
    if kernel != (1, 1):
        possible = ["channel"]
        if group == 1:
            possible += ["tucker2", "svd-pair", "mono"] + (["spatial"] if kernel == (3, 3) else [])
    scheme = draw(st.sampled_from(possible))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "group": group}
    if draw(st.booleans()):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    else:
        pads = [k // 2 for k in kernel]
        attributes["pads"] = [*pads, *((k - 1 - p) for k, p in zip(kernel, pads, strict=True))]
    inputs = [x]
    if shape in net.shared and draw(st.booleans()):
        weight, scheme = net.shared[shape]
    else:
        weight = net.stored(net.low_rank(shape, scheme))
        net.shared[shape] = weight, scheme
    inputs.append(weight)
    if draw(st.booleans()):
        inputs.append(net.stored((net.rng.integers(-4, 5, out) / 4).astype(net.dtype)))
    y = net.add("Conv", inputs, **attributes)
    if not net.plan or draw(st.integers(0, 3)):
        net.plan[net.nodes[-1].name] = SCHEMES[scheme]
    return y, out


def _activation(net: Network, x: str, channels: int) -> tuple[str, int]:
    kind = net.draw(st.sampled_from(["Relu", "LeakyRelu", "Clip", "Sigmoid", "function", "norm"]))
    if kind == "Clip":
        bounds = [net.constant(np.asarray(v, net.dtype)) for v in (-1, 2)]
        return net.add("Clip", [x, *bounds]), channels
    if kind == "norm":
        values = net.rng.integers(1, 4, (4, channels)) / 2
        names = [net.constant(v.astype(net.dtype)) for v in values]
        return net.add("BatchNormalization", [x, *names]), channels
    if kind == "function":
        # A function may have the name of an op and compute another thing. (Of one called Gather
        # with one input onnxruntime 1.32 itself dies, whatever is done to the model.)
        name = net.draw(st.sampled_from(["Relu", "Clip", "Sigmoid", "Conv1"]))
        if not any(f.name == name for f in net.functions):
            body = [
                helper.make_node("Neg", ["a"], ["b"]),
                helper.make_node("Sigmoid", ["b"], ["c"]),
            ]
            opset = [helper.make_opsetid("", 13)]
            net.functions.append(helper.make_function("my", name, ["a"], ["c"], body, opset))
        return net.add(name, [x], domain="my"), channels
    return net.add(kind, [x]), channels


def _residual(net: Network, x: str, channels: int) -> tuple[str, int]:
    weight = net.constant(net.low_rank((channels, channels, 1, 1), "svd"))
    y = net.add("Conv", [x, weight])
    net.plan[net.nodes[-1].name] = SCHEMES["svd"]
    return net.add("Add", [x, y]), channels


def _split(net: Network, x: str, channels: int) -> tuple[str, int]:
    if channels % 2:
        return x, channels
    a, b = net.name("t"), net.name("t")
    sizes = net.constant(np.array([channels // 2] * 2, np.int64))
    net.nodes.append(helper.make_node("Split", [x, sizes], [a, b], net.name("split"), axis=1))
    c, width = _conv(net, b, channels // 2)
    return net.add("Concat", [a, b, c], axis=1), channels + width


def _pool(net: Network, x: str, channels: int) -> tuple[str, int]:
    kind = net.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    return net.add(kind, [x], kernel_shape=[2, 2], pads=[0, 0, 1, 1]), channels


def _branch(net: Network, x: str, channels: int) -> tuple[str, int]:
    """Append an If whose bodies read the outer tensor; one of them has a Conv of its own."""
    output, condition = net.name("t"), net.constant(np.asarray(net.draw(st.booleans())))
    weight = net.low_rank((channels, channels, 1, 1), "channel")
    bodies = []
    for has_conv in (True, False):
        inner = net.name("t")
        info = helper.make_tensor_value_info(inner, net.kind, None)
        stored = [numpy_helper.from_array(weight, net.name("w"))] if has_conv else []
        node = (
            helper.make_node("Conv", [x, stored[0].name], [inner], net.name("inner"))
            if has_conv
            else helper.make_node("Relu", [x], [inner])
        )
        bodies.append(helper.make_graph([node], net.name("body"), [], [info], stored))
    net.nodes.append(
        helper.make_node(
            "If",
            [condition],
            [output],
            net.name("if"),
            then_branch=bodies[0],
            else_branch=bodies[1],
        )
    )
    return output, channels


def _loop(net: Network, x: str, channels: int) -> tuple[str, int]:
    """Append a Loop of two rounds that scales what it carries and an outer tensor."""
    i, c, v, k, w = (net.name("l") for _ in range(5))
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", [c], [k]), helper.make_node("Max", [v, x], [w])],
        net.name("body"),
        [info(i, TensorProto.INT64, []), info(c, TensorProto.BOOL, []), info(v, net.kind, None)],
        [info(k, TensorProto.BOOL, []), info(w, net.kind, None)],
    )
    rounds = net.constant(np.asarray(2, np.int64))
    truth = net.constant(np.asarray(True))
    return net.add("Loop", [rounds, truth, x], body=body), channels


BLOCKS = (_conv, _conv, _conv, _activation, _activation, _residual, _split, _pool, _branch, _loop)


@st.composite
def networks(draw: Draw) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Draw a network and a plan for it that loses nothing."""
    kind = draw(
        st.sampled_from([TensorProto.FLOAT] * 6 + [TensorProto.FLOAT16, TensorProto.DOUBLE])
    )
    net = Network(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))), kind)
    channels = draw(st.sampled_from([3, 4, 6]))
    batch: int | str = draw(st.sampled_from(["N", "N", 1, 1, 2, 2, 0]))
    sides = draw(st.sampled_from([[7, 8], ["H", "W"], [5, "W"]]))
    value, first = "x", [batch, channels, *sides]
    value, channels = _conv(net, value, channels)
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6)):
        value, channels = block(net, value, channels)
        if draw(st.integers(0, 4)) == 0:
            net.outputs.append(value)
    if draw(st.booleans()):
        pooled = net.add("Flatten", [net.add("GlobalAveragePool", [value])])
        weight = net.low_rank((channels, 5), "svd")
        if draw(st.booleans()):
            value = net.add("Gemm", [pooled, net.stored(weight)])
        else:
            value = net.add("MatMul", [pooled, net.stored(weight)])
        net.plan[net.nodes[-1].name] = SCHEMES["svd"]
        net.ranks[value] = 2
    outputs = list(dict.fromkeys([*net.outputs, value]))
    graph = helper.make_graph(
        net.nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, first)],
        [helper.make_tensor_value_info(n, kind, [None] * net.ranks.get(n, 4)) for n in outputs],
        net.weights,
    )
    opsets = [helper.make_opsetid("", 13)]
    if net.functions:
        opsets.append(helper.make_opsetid("my", 1))
    model = helper.make_model(
        graph, ir_version=8, opset_imports=opsets, functions=net.functions, producer_name="trust"
    )
    return model, net.plan
