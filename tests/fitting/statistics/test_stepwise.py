"""Layer after layer from kept inputs: the same numbers as from whole runs of the networks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import ModelError
from onnx_lowrank.fitting.statistics import Sampling, StepwiseStatistics, calibrate
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers, layer_weight
from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics, RowMoments
from onnx_lowrank.runtime import model_inputs, open_session

LAYERS = ["first", "left", "right", "after", "head"]
WEIGHTS = dict(zip(LAYERS, ("w1", "w2", "w3", "w4", "w5"), strict=True))
OUTPUTS = dict(zip(LAYERS, ("y1", "y2", "y3", "y4", "y5"), strict=True))
INPUTS = dict(zip(LAYERS, ("x", "a1", "a1", "s", "f"), strict=True))
ALL = 30  # positions of an image


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


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return layer_weight(GraphEditor(model), {x.name: x for x in find_layers(model)}[name])


def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((7, 3, 6, 5)).astype(np.float32)


def data(model: onnx.ModelProto) -> Dataset:
    return open_dataset([{"x": images()}], model_inputs(model), batch=3)


def close(found: np.ndarray | None, expected: np.ndarray, name: str) -> None:
    assert found is not None, name
    # Float32 runs may differ in the order of sums; the sums of squares here are below 10^4.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4, err_msg=name)


def assert_holds(found: LayerStatistics, expected: LayerStatistics) -> None:
    """Check that some statistics are among others."""
    left = found.to_arrays()
    for name, value in expected.to_arrays().items():
        close(left.get(name), value, name)


def values(model: onnx.ModelProto, *names: str) -> list[np.ndarray]:
    """Return tensors in float64, of float32 runs of the whole network."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {output.name for output in copy.graph.output}
    for name in names:
        if name not in have and name != "x":
            copy.graph.output.add().name = name
    found = {"x": images(), **open_session(copy).run({"x": images()}, None)}
    return [found[name].astype(np.float64) for name in names]


def assert_drift(
    found: LayerStatistics, name: str, model: onnx.ModelProto, compressed: onnx.ModelProto
) -> None:
    """Check the drift by what the layer puts out: its own weight is the same in both."""
    (before,) = values(model, OUTPUTS[name])
    after, x = values(compressed, OUTPUTS[name], INPUTS[name])
    assert isinstance(found.moments, DenseMoments)
    assert found.moments.drift is not None
    taps = weight(model, name)[0, 0].size
    # The centre of a patch under all positions is the activation itself.
    centre = found.moments.drift[0][:, taps // 2 :: taps]
    expected = np.einsum("nfhw,nchw->fc", before - after, x) / before[:, 0].size
    close(centre, expected, f"drift of {name}")


@pytest.mark.parametrize("positions", [20, ALL])
def test_steps_give_what_runs_of_the_whole_networks_give(positions: int) -> None:
    model = network()
    samples = data(model)
    sampling = Sampling(positions=positions)
    done: list[str] = []
    with StepwiseStatistics(model, samples, LAYERS, sampling=sampling) as steps:
        for name in LAYERS:
            compressed = scaled(model, *done) if done else model
            found = steps.next(name, weight(model, name), compressed if done else None)
            alone = calibrate(compressed, samples, [name], sampling=sampling)[name]
            assert_holds(found, alone)
            original = calibrate(model, samples, [name], sampling=sampling)[name].moments
            if isinstance(found.moments, RowMoments):
                assert isinstance(original, RowMoments)
                close(found.moments.original_rows, original.rows, name)
            elif not done:
                assert (found.moments.original_mean, found.moments.drift) == (None, None)
            else:
                close(found.moments.original_mean, original.mean, name)
                if positions == ALL:
                    assert_drift(found, name, model, compressed)
            done.append(WEIGHTS[name])


def test_layers_before_the_first_that_is_replaced_see_one_network() -> None:
    model = network()
    samples = data(model)
    with StepwiseStatistics(model, samples, ["left", "after"]) as steps:
        found = steps.next("left", weight(model, "left"), None)
        assert_holds(found, calibrate(model, samples, ["left"])["left"])
        compressed = scaled(model, "w2")
        found = steps.next("after", weight(model, "after"), compressed)
        assert_holds(found, calibrate(compressed, samples, ["after"])["after"])
        assert_drift(found, "after", model, compressed)


def test_files_that_nothing_follows_from_are_deleted() -> None:
    model = network()
    with StepwiseStatistics(model, data(model), LAYERS) as steps:
        kept = []
        for name in LAYERS:
            steps.next(name, weight(model, name), None)
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
        steps.next("left", weight(model, "left"), None)
        with pytest.raises(ModelError, match="has no tensor 's'"):
            steps.next("after", weight(model, "after"), other)
