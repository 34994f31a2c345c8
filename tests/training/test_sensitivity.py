"""Squared gradients against finite differences of the softmax output, in another evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import initializers, text_model
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

pytest.importorskip("torch", reason="torch is not installed: extra finetune")

from onnx_lowrank.data import open_dataset
from onnx_lowrank.errors import DataError, ModelError, PlanError
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training.sensitivity import squared_gradients

NET = """
net ({kind}[{batch},2,6,6] x) => ({kind}[{batch},5] y)
{{
    [conv1] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    [relu1] c = Relu(a)
    [conv2] d = Conv<group=2, strides=[2,2]>(c, w2)
    [tanh] e = Tanh(d)
    [flat] f = Flatten(e)
    [fc1] g = MatMul(f, w3)
    [sig] h = Sigmoid(g)
    [fc2] i = Gemm<alpha=2.0>(h, w4, b4)
    [softmax] y = Softmax(i)
}}
"""
SHAPES = {
    "w1": (4, 2, 3, 3),
    "b1": (4,),
    "w2": (4, 2, 3, 3),
    "w3": (16, 6),
    "w4": (6, 5),
    "b4": (5,),
}
LAYERS = {"conv1": "w1", "conv2": "w2", "fc1": "w3", "fc2": "w4"}
WRONG = 2


def network(batch: int | str = "N") -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    weights = {name: value.astype(np.float32) for name, value in values.items()}
    return text_model(NET.format(kind="float", batch=batch), weights)


def in_double(model: onnx.ModelProto, changed: str, value: np.ndarray) -> ReferenceEvaluator:
    weights = {name: each.astype(np.float64) for name, each in initializers(model).items()}
    weights[changed] = value
    return ReferenceEvaluator(text_model(NET.format(kind="double", batch="N"), weights))


IMAGES = np.random.default_rng(1).standard_normal((3, 2, 6, 6)).astype(np.float32)
LABELS = np.array([1, 4, 0])


def losses(model: onnx.ModelProto, name: str, value: np.ndarray) -> np.ndarray:
    """-log p of every image and class."""
    (output,) = in_double(model, name, value).run(None, {"x": IMAGES.astype(np.float64)})
    return -np.log(output)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_they_are_those_of_finite_differences(layer: str, labelled: bool) -> None:
    model = network()
    feeds = {"x": IMAGES, "labels": LABELS} if labelled else {"x": IMAGES}
    dataset = open_dataset([feeds], model_inputs(model), batch=2)
    found = squared_gradients(model, dataset, [layer], wrong_labels=WRONG)[layer]

    name = LAYERS[layer]
    value = initializers(model)[name].astype(np.float64)
    base = losses(model, name, value)
    right = LABELS if labelled else base.argmin(axis=1)
    expected = np.zeros_like(value)
    step = 1e-5
    for index in np.ndindex(value.shape):
        ends = []
        for sign in (1, -1):
            moved = value.copy()
            moved[index] += sign * step
            ends.append(losses(model, name, moved))
        slopes = (ends[0] - ends[1]) / (2 * step)
        for image in range(3):
            order = [each for each in base[image].argsort() if each != right[image]][:WRONG]
            expected[index] += sum(slopes[image, each] ** 2 for each in order) / (3 * WRONG)
    if layer == "fc1":
        expected = expected.T
    if layer == "fc2":
        expected = expected.T / 4  # by alpha times the weight
    # A sum of float32 gradients, each from sums of up to 144 products: some 12 eps of the largest.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6 * expected.max())
    assert found.dtype == np.float64


def test_a_model_that_fixes_its_batch_gives_the_same() -> None:
    results = []
    for batch in ("N", 2):
        model = network(batch)
        dataset = open_dataset([{"x": IMAGES}], model_inputs(model))
        results.append(squared_gradients(model, dataset, ["conv1"])["conv1"])
    # Rows of a batch of 2 may be summed in another order than one row.
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-6 * results[0].max())


def test_what_cannot_be_is_said_in_one_line() -> None:
    model = network()
    inputs = model_inputs(model)
    with pytest.raises(PlanError, match="no layer is called 'conv3'; did you mean 'conv"):
        squared_gradients(model, open_dataset([{"x": IMAGES}], inputs), ["conv3"])
    feeds = {"x": IMAGES, "labels": np.array([0, 1, 5])}
    with pytest.raises(DataError, match="label 5 is not one of 5 classes"):
        squared_gradients(model, open_dataset([feeds], inputs), ["conv1"])
    headless = network()
    del headless.graph.node[4:]
    headless.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, ["N", 4, 2, 2])
    )
    with pytest.raises(ModelError, match="of which 0 are one row of class scores"):
        squared_gradients(headless, open_dataset([{"x": IMAGES}], inputs), ["conv1"])
    (tensor,) = (t for t in model.graph.initializer if t.name == "w4")
    tensor.CopyFrom(numpy_helper.from_array(np.full((6, 5), np.inf, np.float32), "w4"))
    with pytest.raises(ModelError, match="output 'y' in torch is nan of its largest value off"):
        squared_gradients(model, open_dataset([{"x": IMAGES}], inputs), ["conv1"])
