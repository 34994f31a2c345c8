from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.runtime.attribution import assign_rows, attribute

Build = Callable[..., onnx.ModelProto]
LAYER_OPS = ("Conv", "Gemm", "MatMul")


def _optimised(model: onnx.ModelProto, path: Path) -> onnx.GraphProto:
    """Return what onnxruntime makes of a model."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path).graph


def _layers(graph: onnx.GraphProto) -> dict[str, str]:
    return {node.name: node.name for node in graph.node if node.op_type in LAYER_OPS}


def _graph(text: str) -> onnx.GraphProto:
    """Parse a graph; ``__`` in the name of a node stands for a slash, which the parser refuses."""
    graph = parser.parse_model('<ir_version: 8, opset_import: ["" : 13]>\n' + text).graph
    for node in graph.node:
        node.name = node.name.replace("__", "/")
    return graph


def test_rows_of_a_network(residual_net: Build) -> None:
    graph = residual_net().graph
    assert assign_rows(graph, _layers(graph)) == {
        "conv1": "conv1",
        "relu1": "conv1",
        "conv2": "conv2",
        "bn2": "conv2",
        "sum": "sum",  # two operands are computed: it belongs to no layer alone
        "relu2": "relu2",
        "lrn": "lrn",
        "pool": "pool",
        "reshape": "reshape",
        "fc1": "fc1",
        "bias1": "fc1",
        "relu3": "fc1",
        "fc2": "fc2",
    }


def test_rows_of_a_rewritten_network() -> None:
    graph = _graph(
        """
        net (float[1,3,8,8] x) => (float[1,4,8,8] y) {
            [conv1__colours] a = Conv(x, w1)
            [conv1__filters] b = Conv(a, w2)
            [conv1__order] c = Relu(b)
            [relu1] d = Relu(c)
            [conv1__a__b] e = Abs(d)
            [conv10] y = Conv(e, w3)
        }
        """
    )
    rows = assign_rows(graph, _layers(graph), owners=["conv1", "conv1/a", "conv"])
    assert rows == {
        "conv1/colours": "conv1",
        "conv1/filters": "conv1",
        "conv1/order": "conv1",
        "relu1": "conv1",
        "conv1/a/b": "conv1/a",  # the longest owner
        "conv10": "conv10",  # a name that only begins alike
    }


def test_fused_renamed_and_added_nodes(residual_net: Build, tmp_path: Path) -> None:
    model = residual_net()
    optimised = _optimised(model, tmp_path / "optimised.onnx")
    layers = _layers(model.graph)
    found = attribute(
        model.graph, optimised, assign_rows(model.graph, layers), set(layers.values())
    )
    by_op = {node.name: node.op_type for node in optimised.node}
    arithmetic = [row for name, row in found.items() if re.search("Conv|Gemm|MatMul", by_op[name])]
    # Each layer is executed once, whatever it is fused with: nothing is left of the others' names.
    assert Counter(arithmetic) == Counter(layers.values())
    assert set(found) == {node.name for node in optimised.node}
    assert None not in found.values()
    assert "relu1" not in found.values()
    rows = {found[name] for name, op in by_op.items() if op == "LRN"}
    assert rows == {"lrn"}


def test_names_that_onnxruntime_gives() -> None:
    model = _graph(
        """
        net (float[1,8,8,8] x, float[1,8,8,8] z) => (float[1,8] y) {
            [c] t = Conv(x, w)
            [s] u = Add(t, z)
            [r] v = Relu(u)
            [b] p = BatchNormalization(v, s1, s2, s3, s4)
            [f] q = Flatten(p)
            [m] o = MatMul(q, k)
            [a] y = Add(o, d)
        }
        """
    )
    optimised = _graph(
        """
        net (float[1,8,8,8] x, float[1,8,8,8] z) => (float[1,8] y) {
            [ReorderInput] i = Neg(x)
            [t_nchwc_token_3] j = Conv(i, w, z)
            [p_bn_nchwc] k = Conv(j, w2)
            [ReorderOutput_token_1] q = Flatten(k)
            [Cast_7] l = Abs(q)
            [m__MatMulAddFusion] y = Gemm(l, k2, d)
        }
        """
    )
    found = attribute(model, optimised, assign_rows(model, {"c": "c", "m": "m"}), {"c", "m"})
    assert found == {
        "ReorderInput": "c",  # of what reads it
        "t_nchwc_token_3": "c",
        "p_bn_nchwc": "b",  # a BatchNormalization that runs as a Conv is no layer
        "ReorderOutput_token_1": "f",
        "Cast_7": "m",
        "m/MatMulAddFusion": "m",
    }


def test_a_sum_fused_behind_a_layer_is_that_layers_work() -> None:
    model = _graph(
        """
        net (float[1,8,8,8] x, float[1,8,8,8] z) => (float[1,8,8,8] y) {
            [first] t = Conv(x, w)
            [second] u = Conv(z, w)
            [sum] v = Add(t, u)
            [relu] y = Relu(v)
        }
        """
    )
    optimised = _graph(
        """
        net (float[1,8,8,8] x, float[1,8,8,8] z) => (float[1,8,8,8] y) {
            [first] t = Conv(x, w)
            [anonymous] y = FusedConv(z, w, b, t)
        }
        """
    )
    layers = {"first": "first", "second": "second"}
    found = attribute(model, optimised, assign_rows(model, layers), layers.keys())
    assert found == {"first": "first", "anonymous": "second"}


def test_what_nothing_is_known_of() -> None:
    model = _graph("net (float[1] x) => (float[1] y) { [a] y = Abs(x) }")
    optimised = _graph("net (float[1] x) => (float[1] z) { [other] z = Neg(x) }")
    assert attribute(model, optimised, {"a": "a"}, set()) == {"other": None}


@pytest.mark.parametrize(
    ("name", "extra"),
    [("squeezenet", 0), ("resnet50", 0), ("inception_v1", 0), ("densenet121", 124)],
)
def test_every_layer_of_real_networks_is_found_once(
    light_folder: Path, tmp_path: Path, name: str, extra: int
) -> None:
    """Names and topology as exporters write them; `extra` are scalings that run as Convs."""
    model = onnx.load(light_folder / f"light_{name}.onnx")
    # Equal weights on equal inputs would be computed once.
    for number, node in enumerate(model.graph.node):
        if node.op_type == "ConstantOfShape":
            value = numpy_helper.from_array(np.array([1e-3 * number], np.float32))
            node.attribute[0].t.CopyFrom(value)
    layers = _layers(model.graph)
    rows = assign_rows(model.graph, layers)
    optimised = _optimised(model, tmp_path / "optimised.onnx")
    found = attribute(model.graph, optimised, rows, set(layers.values()))
    assert None not in found.values()
    arithmetic = Counter(
        found[node.name] for node in optimised.node if re.search("Conv|Gemm|MatMul", node.op_type)
    )
    assert {row: n for row, n in arithmetic.items() if row in layers} == dict.fromkeys(layers, 1)
    others = [row for row in arithmetic if row not in layers]
    ops = {node.name: node.op_type for node in model.graph.node}
    assert {ops[row] for row in others} <= {"BatchNormalization", "Mul", "Add", "Relu"}
    assert len(others) == extra


@pytest.mark.parametrize("end", ["\n", "_nchwc\n", "\ny", '"', "\0"])
def test_a_layer_whose_name_ends_in_any_character_has_its_time(
    residual_net: Build, tmp_path: Path, end: str
) -> None:
    model = residual_net()
    for node in model.graph.node:
        node.name += end
        node.input[:] = [name + end for name in node.input]
        node.output[:] = [name + end for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name += end
    graph = _optimised(model, tmp_path / "optimised.onnx")
    layers = _layers(model.graph)
    found = attribute(model.graph, graph, assign_rows(model.graph, layers), set(layers))
    assert {f"{name}{end}" for name in ("conv1", "conv2", "fc1", "fc2")} <= set(found.values())
