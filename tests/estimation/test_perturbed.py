from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import text_model

from onnx_lowrank.data import Batch
from onnx_lowrank.errors import ModelError
from onnx_lowrank.estimation.perturbed import PerturbedNetwork
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.runtime.engines import CPU

RNG = np.random.default_rng(0)
NET = """
net (float[N,3,6,6] x) => (float[N,5,6,6] z) {
    y = Conv<pads=[1,1,1,1]>(x, w1)
    z = Conv(y, w2)
}
"""
WEIGHTS = {
    "w1": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "w2": RNG.standard_normal((5, 4, 1, 1)).astype(np.float32),
}


def network(text: str = NET) -> onnx.ModelProto:
    model = text_model(text, WEIGHTS)
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def batch(count: int = 2) -> Batch:
    x = np.random.default_rng(1).standard_normal((count, 3, 6, 6)).astype(np.float32)
    return Batch({"x": x}, count, None, count)


def test_what_layers_read_and_write_is_seen() -> None:
    model, fed = network(), batch()
    seen = PerturbedNetwork(model, find_layers(model), CPU).observe(fed)
    y = CPU.load(model).run(fed.feeds)["z"]
    np.testing.assert_allclose(seen.outputs["z"], y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(seen.written["z"], seen.outputs["z"])
    np.testing.assert_array_equal(seen.read["y"], fed.feeds["x"])
    np.testing.assert_array_equal(seen.read["z"], seen.written["y"])


def test_without_changes_there_is_no_noise() -> None:
    model = network()
    perturbed = PerturbedNetwork(model, find_layers(model), CPU)
    assert perturbed.noise(perturbed.observe(batch()), {}) == 0


def test_a_change_carries_as_the_layers_behind_it_say() -> None:
    model = network()
    perturbed = PerturbedNetwork(model, find_layers(model), CPU)
    seen = perturbed.observe(batch())
    change = np.random.default_rng(2).standard_normal(seen.written["y"].shape)
    error = np.einsum("fc,ncij->nfij", WEIGHTS["w2"][:, :, 0, 0], change)
    expected = np.sum(error**2) / np.sum(seen.outputs["z"].astype(np.float64) ** 2)
    assert perturbed.noise(seen, {"y": change}) == pytest.approx(expected, rel=1e-4)


def test_of_a_classifier_the_logits_count() -> None:
    model = network(
        """
        net (float[N,3,6,6] x) => (float[N,5] p) {
            y = Conv<pads=[1,1,1,1]>(x, w1)
            z = Conv(y, w2)
            m = GlobalAveragePool(z)
            f = Flatten(m)
            p = Softmax<axis=1>(f)
        }
        """
    )
    perturbed = PerturbedNetwork(model, find_layers(model), CPU)
    seen = perturbed.observe(batch())
    same = np.full(seen.written["z"].shape, 7.0)
    assert perturbed.noise(seen, {"z": same}) < 1e-9  # a constant added to all scores
    change = np.zeros(seen.written["z"].shape)
    change[:, 0] = 1.0
    logits = np.log(seen.outputs["p"].astype(np.float64))
    logits -= logits.mean(axis=1, keepdims=True)
    expected = 2 * 0.8 / np.sum(logits**2)  # |(1, 0, 0, 0, 0) - 0.2|^2 = 0.8, of two samples
    assert perturbed.noise(seen, {"z": change}) == pytest.approx(expected, rel=1e-3)


def test_a_layer_inside_a_branch_is_left_alone() -> None:
    model = network()
    layers = find_layers(model)
    del model.graph.node[1:]
    model.graph.output[0].name = "y"
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    perturbed = PerturbedNetwork(model, layers, CPU)
    assert perturbed.observe(batch()).written.keys() == {"y"}


def test_without_an_output_of_floats_there_is_nothing_to_lose() -> None:
    text = "net (float[N,3,6,6] x) => (int64[N,1,6,6] a) {\n y = Conv<pads=[1,1,1,1]>(x, w1)\n"
    model = network(text + " a = ArgMax<axis=1>(y)\n}")
    with pytest.raises(ModelError, match="no output of the model is of floats"):
        PerturbedNetwork(model, find_layers(model), CPU)
