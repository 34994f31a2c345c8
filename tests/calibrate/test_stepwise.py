"""Layer after layer from kept inputs: the same numbers as from whole runs of the networks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.calibrate import StepwiseStatistics, calibrate
from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import ModelError
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.runtime import model_inputs

LAYERS = ["first", "left", "right", "after", "head"]


def network() -> onnx.ModelProto:
    """Two Convs of one input whose outputs are added to it, a Conv after, and a MatMul."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((4, 3, 3, 3)),
        "w2": rng.standard_normal((4, 4, 3, 3)),
        "w3": rng.standard_normal((4, 4, 1, 1)),
        "w4": rng.standard_normal((2, 4, 3, 3)),
        "w5": rng.standard_normal((2 * 6 * 5, 3)),
    }
    same = {"auto_pad": "SAME_UPPER"}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["y1"], "first", **same),
        helper.make_node("Relu", ["y1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["y2"], "left", **same),
        helper.make_node("Conv", ["a1", "w3"], ["y3"], "right"),
        helper.make_node("Sum", ["a1", "y2", "y3"], ["s"]),
        helper.make_node("Conv", ["s", "w4"], ["y4"], "after", **same),
        helper.make_node("Relu", ["y4"], ["a4"]),
        helper.make_node("Flatten", ["a4"], ["f"]),
        helper.make_node("MatMul", ["f", "w5"], ["y5"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 5])],
        [helper.make_tensor_value_info("y5", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def scaled(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """Return a copy in which some weights are a little smaller."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor) * np.float32(0.75)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def data(model: onnx.ModelProto) -> Dataset:
    x = np.random.default_rng(1).standard_normal((7, 3, 6, 5)).astype(np.float32)
    return open_dataset([{"x": x}], model_inputs(model), batch=3)


def assert_same(found: LayerStatistics, expected: LayerStatistics) -> None:
    left, right = found.to_arrays(), expected.to_arrays()
    assert left.keys() == right.keys()
    for name, value in right.items():
        # Float32 runs may differ in the order of sums; the sums of squares here are below 10^4.
        np.testing.assert_allclose(left[name], value, rtol=1e-5, atol=1e-4, err_msg=name)


def test_steps_give_what_runs_of_the_whole_networks_give() -> None:
    model = network()
    samples = data(model)
    done: list[str] = []
    weights = dict(zip(LAYERS, ("w1", "w2", "w3", "w4", "w5"), strict=True))
    with StepwiseStatistics(model, samples, LAYERS, positions=20) as steps:
        for name in LAYERS:
            compressed = scaled(model, *done) if done else None
            found = steps.next(name, compressed)
            expected = calibrate(model, samples, [name], compressed=compressed, positions=20)
            assert_same(found, expected[name])
            done.append(weights[name])


def test_layers_before_the_first_that_is_replaced_see_one_network() -> None:
    model = network()
    samples = data(model)
    with StepwiseStatistics(model, samples, ["left", "after"]) as steps:
        assert_same(steps.next("left", None), calibrate(model, samples, ["left"])["left"])
        compressed = scaled(model, "w2")
        both = calibrate(model, samples, ["after"], compressed=compressed)["after"]
        assert_same(steps.next("after", compressed), both)


def test_files_that_nothing_follows_from_are_deleted() -> None:
    model = network()
    with StepwiseStatistics(model, data(model), LAYERS) as steps:
        kept = []
        for name in LAYERS:
            steps.next(name, None)
            kept.append(set(steps._original.files))
    # The sum takes the input of both branches; what a layer reads is needed up to the next.
    assert kept == [set(), {"a1"}, {"a1"}, {"s"}, set()]


def test_a_network_without_the_tensor_is_refused() -> None:
    model = network()
    other = scaled(model)
    for node in other.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = "renamed" if name == "s" else name
    with StepwiseStatistics(model, data(model), ["left", "after"]) as steps:
        steps.next("left", None)
        with pytest.raises(ModelError, match="has no tensor 's'"):
            steps.next("after", other)
