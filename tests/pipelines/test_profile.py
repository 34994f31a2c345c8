from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.measure.profiling import ModelProfile
from onnx_lowrank.pipelines.profile import profile

Build = Callable[..., onnx.ModelProto]
ROWS = ["conv1", "conv2", "sum", "relu2", "lrn", "pool", "reshape", "fc1", "fc2"]
# Multiply-adds of one image: output positions x filters x (channels x taps).
MACS = {
    "conv1": 32 * 32 * 32 * 27,
    "conv2": 32 * 32 * 32 * 288,
    "fc1": 512 * 64,
    "fc2": 64 * 10,
}


def _check(model: ModelProfile) -> None:
    shares = [row.share for row in model.rows]
    assert sum(shares) == pytest.approx(1)
    assert model.attributed == pytest.approx(1)
    # Nodes run one after the other inside a run, and the profiler rounds down.
    assert (model.total <= model.profiled_wall).all()
    for row in model.rows:
        np.testing.assert_allclose(
            row.seconds, np.sum([node.seconds for node in row.nodes], axis=0)
        )


def test_rows_costs_and_sums(residual_net: Build, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(residual_net(1), path)
    report = profile(path, batch=4, threads=1, runs=5)
    assert (report.batch, report.runs, report.threads) == (4, 5, 1)
    _check(report.model)
    found = {row.name: row for row in report.model.rows}
    assert [name for name in ROWS if name in found] == list(found)
    assert {name for name, row in found.items() if row.layer} == set(MACS)
    assert {name: found[name].macs for name in MACS} == {n: 4 * m for n, m in MACS.items()}
    for name in MACS:
        row = found[name]
        assert row.gflops == pytest.approx(2 * 4 * MACS[name] / row.mean / 1e9)
    assert found["lrn"].macs is None
    assert found["lrn"].gflops is None
    assert found["fc1"].op == "MatMul"

    data = report.to_dict()
    json.dumps(data, allow_nan=False)
    assert data["version"] == 1
    assert data["compared"] is None
    assert data["model"]["name"] == "net.onnx"
    assert data["model"]["attributed"] == pytest.approx(1)
    (conv1,) = (row for row in data["model"]["rows"] if row["name"] == "conv1")
    assert conv1["peak_share"] == pytest.approx(conv1["gflops"] / data["peak"]["gflops"])
    assert conv1["nodes"]
    assert set(data["noise"]) >= {"noisy", "reasons"}
    assert conv1["sd_ms"] == pytest.approx(1e3 * found["conv1"].seconds.std(ddof=1))


def test_layers_are_called_as_inspect_calls_them(residual_net: Build) -> None:
    model = residual_net(1)
    model.graph.node[0].name = ""
    model.graph.node[2].name = "fc2"  # as another layer is called
    names = [layer.name for layer in find_layers(model)]
    report = profile(model, threads=1, runs=2)
    assert [row.name for row in report.model.rows if row.layer] == names


def _split_conv2(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace conv2 by a 1x1 and a 3x3 Conv of 8 channels between, named as lowering names them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    rng = np.random.default_rng(0)
    for name, shape in (("u", (8, 32, 1, 1)), ("v", (32, 8, 3, 3))):
        value = rng.standard_normal(shape).astype(np.float32) / 10
        graph.initializer.append(numpy_helper.from_array(value, name))
    index = next(k for k, node in enumerate(graph.node) if node.name == "conv2")
    nodes = list(graph.node)
    make = onnx.helper.make_node
    nodes[index : index + 1] = [
        make("Conv", ["a2", "u"], ["middle"], name="conv2/inputs"),
        make("Conv", ["middle", "v"], ["a3"], name="conv2/core", pads=[1, 1, 1, 1]),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(copy)
    return copy


def test_a_rewritten_model_beside_the_original(residual_net: Build) -> None:
    model = residual_net(1)
    report = profile(model, compare=_split_conv2(model), threads=1, runs=3)
    assert report.compared is not None
    _check(report.model)
    _check(report.compared)
    old, new = report.model.row("conv2"), report.compared.row("conv2")
    assert old is not None
    assert new is not None
    assert old.macs == MACS["conv2"]
    assert new.macs == 32 * 32 * (8 * 32 + 32 * 8 * 9)
    assert new.layer
    names = [row.name for row in report.compared.rows]
    assert [name for name in ROWS if name in names] == names
    assert report.to_dict()["compared"]["rows"]


def test_a_custom_node_that_onnxruntime_inlines(residual_net: Build) -> None:
    """Its inner nodes have names and tensors of onnxruntime's own."""
    model = residual_net(1)
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(_split_conv2(model))
    graph = rewritten.graph
    first, second = (n for n in graph.node if n.name.startswith("conv2/"))
    inner = [onnx.NodeProto(), onnx.NodeProto()]
    for copy, node in zip(inner, (first, second), strict=True):
        copy.CopyFrom(node)
    opset = [onnx.helper.make_opsetid("", 13)]
    function = onnx.helper.make_function(
        "onnx_lowrank", "Pair", ["a2", "u", "v"], ["a3"], inner, opset
    )
    rewritten.functions.append(function)
    rewritten.opset_import.append(onnx.helper.make_opsetid("onnx_lowrank", 1))
    second.CopyFrom(
        onnx.helper.make_node(
            "Pair", ["a2", "u", "v"], ["a3"], name="conv2/pair", domain="onnx_lowrank"
        )
    )
    graph.node.remove(first)
    onnx.checker.check_model(rewritten)

    report = profile(model, compare=rewritten, threads=1, runs=2)
    assert report.compared is not None
    _check(report.compared)
    row = report.compared.row("conv2")
    assert row is not None
    assert row.layer
    assert sum("Conv" in node.op for node in row.nodes) == 2
    assert row.macs is None  # the arithmetic of a custom node is not known
    assert row.op == "Pair"


def test_too_few_runs(residual_net: Build) -> None:
    with pytest.raises(OnnxLowRankError, match="a standard deviation needs 2 or more"):
        profile(residual_net(1), runs=1)


@pytest.mark.parametrize("name", ["squeezenet", "inception_v2", "resnet50"])
def test_real_networks_are_attributed_in_full(light_folder: Path, name: str) -> None:
    report = profile(light_folder / f"light_{name}.onnx", threads=1, runs=2)
    _check(report.model)
    layers = find_layers(onnx.load(light_folder / f"light_{name}.onnx"))
    assert [row.name for row in report.model.rows if row.layer] == [x.name for x in layers]
    assert all(row.macs for row in report.model.rows if row.layer)
