from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from onnx_lowrank.fitting.layer import LayerFit
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.schemes.channel import Channel
from onnx_lowrank.schemes.two_stage import TwoStageFactors
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.single_layer import (
    layer_feeds,
    replaced,
    single_layer_model,
    structure,
)

NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[2,4,9,9] image) => (float[2,5] scores) {
    a1 = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w1, b1)
    a2 = Relu(a1)
    a3 = GlobalAveragePool(a2)
    a4 = Flatten(a3)
    scores = Gemm<transB=1>(a4, w2, b2)
}
"""


@pytest.fixture
def net() -> onnx.ModelProto:
    model = parser.parse_model(NET)
    rng = np.random.default_rng(0)
    shapes = {"w1": (6, 4, 3, 3), "b1": (6,), "w2": (5, 6), "b2": (5,)}
    for name, shape in shapes.items():
        value = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for node, name in zip(model.graph.node, ("conv", "relu", "pool", "flat", "fc"), strict=True):
        node.name = name
    return model


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize(("name", "shape"), [("conv", (3, 4, 9, 9)), ("fc", (3, 6))])
def test_a_layer_alone_computes_what_it_did(
    net: onnx.ModelProto, name: str, shape: tuple[int, ...]
) -> None:
    layer = next(layer for layer in find_layers(net) if layer.name == name)
    single = single_layer_model(net, layer, batch=3)
    onnx.checker.check_model(single, full_check=True)
    feeds = dict(layer_feeds(single, seed=1))
    assert feeds["x"].shape == shape
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in net.graph.initializer}
    if name == "fc":
        expected = feeds["x"] @ weights["w2"].T + weights["b2"]
        np.testing.assert_allclose(
            run(single, feeds), np.maximum(expected, 0), rtol=1e-5, atol=1e-6
        )
    else:
        assert run(single, feeds).shape == (3, 6, 5, 5)
        assert run(single, feeds).min() == 0  # the Relu behind it


def fit(rank: int) -> LayerFit:
    rng = np.random.default_rng(rank)
    factors = TwoStageFactors(
        rng.standard_normal((1, rank, 4, 3, 3)), rng.standard_normal((1, 6, rank))
    )
    return LayerFit("conv", Channel(rank), "frobenius", factors, np.zeros(6), 0, 0, 0)


def test_structure_tells_ranks_apart_but_not_values(net: onnx.ModelProto) -> None:
    layer = find_layers(net)[0]
    single = single_layer_model(net, layer, batch=1)
    other = onnx.ModelProto()
    other.CopyFrom(net)
    for tensor in other.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(2 * values, tensor.name))
    renamed = single_layer_model(other, find_layers(other)[0], batch=1)
    renamed.graph.node[0].name = "elsewhere"
    assert structure(single) == structure(renamed)
    digests = {structure(replaced(single, Candidate(fit(rank), STANDARD))) for rank in (2, 3)}
    assert len(digests | {structure(single)}) == 3
    assert structure(single) != structure(single_layer_model(net, layer, batch=2))
    assert len(replaced(single, Candidate(fit(2), STANDARD)).graph.node) > len(single.graph.node)
