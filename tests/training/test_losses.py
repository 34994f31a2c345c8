"""Losses against their definitions in numpy, and which models have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import run, text_model
from scipy.special import log_softmax

torch = pytest.importorskip("torch", reason="torch is not installed: extra finetune")

from onnx_lowrank import compress
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.training.classes import class_output
from onnx_lowrank.training.executor import Network
from onnx_lowrank.training.losses import TEMPERATURE, Loss
from onnx_lowrank.training.parameters import shared_features, trainable

PLAN = ["conv1=mono:C=4", "conv2=tucker2:R1=4,R2=4"]
IMAGES = np.random.default_rng(3).standard_normal((6, 3, 32, 32)).astype(np.float32)
LABELS = np.array([0, 3, 9, 1, 1, 5])


@pytest.fixture
def pair(residual_net) -> tuple[onnx.ModelProto, onnx.ModelProto]:  # type: ignore[no-untyped-def]
    original = residual_net("N")
    return original, compress(original, plan=PLAN, verification=False).model


def tensor(model: onnx.ModelProto, name: str) -> np.ndarray:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(copy, {"image": IMAGES})[0].astype(np.float64)


def loss_of(pair: tuple[onnx.ModelProto, onnx.ModelProto], kind: Any) -> Loss:
    return Loss(*pair, kind, Network(pair[1]), {"image": IMAGES})


def test_losses_are_as_defined(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    ours, theirs = tensor(pair[1], "scores"), tensor(pair[0], "scores")
    labels = -log_softmax(ours, axis=1)[np.arange(6), LABELS].mean()
    soft = [log_softmax(scores / TEMPERATURE, axis=1) for scores in (ours, theirs)]
    divergence = np.sum(np.exp(soft[1]) * (soft[1] - soft[0])) / 6 * TEMPERATURE**2
    # conv1's output, and conv2's with the BatchNormalization that was folded into it.
    assert shared_features(*pair) == ["a1", "a4"]
    features = []
    for name in shared_features(*pair):
        expected = tensor(pair[0], name)
        features.append(
            np.square(tensor(pair[1], name) - expected).sum() / np.square(expected).sum()
        )
    distill = divergence + np.mean(features)
    feeds = {"image": IMAGES}
    found = {
        kind: loss_of(pair, kind)(feeds, LABELS, agreement=True)
        for kind in ("labels", "distill", "both")
    }
    # Float32 scores, each from a chain of seven layers.
    assert found["labels"].loss.item() == pytest.approx(labels, rel=1e-4)
    assert found["distill"].loss.item() == pytest.approx(distill, rel=1e-4)
    assert found["both"].loss.item() == pytest.approx(labels + distill, rel=1e-4)
    for outcome in found.values():
        assert outcome.right == (ours.argmax(axis=1) == LABELS).sum()
        assert outcome.agreeing == (ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()


def test_labels_that_cannot_be_are_refused(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    with pytest.raises(DataError, match="the loss 'both' needs labels"):
        loss_of(pair, "both")({"image": IMAGES}, None)
    with pytest.raises(DataError, match="label 10 is not one of 10 classes"):
        loss_of(pair, "labels")({"image": IMAGES}, np.array([0, 1, 2, 3, 4, 10]))


MAPS = """
net (float[N,3,32,32] image) => (float[N,4,28,28] map, float[N,6,30,30] features)
{
    [one] features = Conv(image, w)
    [relu] b = Relu(features)
    [two] map = Conv(b, v)
}
"""


def test_a_model_that_is_no_classifier_is_held_to_its_outputs() -> None:
    rng = np.random.default_rng(0)
    shapes = {"w": (6, 3, 3, 3), "v": (4, 6, 3, 3)}
    weights = {k: rng.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}
    original = text_model(MAPS, weights)
    compressed = compress(original, plan=["one=spatial:R=2"], verification=False).model
    pair = (original, compressed)
    outcome = loss_of(pair, "distill")({"image": IMAGES}, None, agreement=True)
    errors = {}
    for name in ("features", "map"):
        expected = tensor(original, name)
        difference = tensor(compressed, name) - expected
        errors[name] = np.square(difference).sum() / np.square(expected).sum()
    # The output of the replaced layer, and both outputs.
    expected_loss = (2 * errors["features"] + errors["map"]) / 3
    assert outcome.loss.item() == pytest.approx(expected_loss, rel=1e-4)
    assert (outcome.right, outcome.agreeing) == (None, None)
    with pytest.raises(ModelError, match="has 2 outputs"):
        loss_of(pair, "labels")
    outputs = {name: torch.from_numpy(tensor(original, name)) for name in ("features", "map")}
    with pytest.raises(ModelError, match=r"has 2 outputs .* of which 0 are one row"):
        class_output(outputs, len(IMAGES))
    assert class_output({**outputs, "scores": torch.zeros(6, 4, 1)}, 6) == "scores"


def test_what_is_trained(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    old = {tensor.name for tensor in pair[0].graph.initializer}
    factors = trainable(*pair, "factors")
    assert factors
    assert not old.intersection(factors)
    above = trainable(*pair, "above")
    assert above == ["fc1_w", "fc1_b", "fc2_w", "fc2_b"]
    assert trainable(*pair, "both") == factors + above
    indices = [t.name for t in pair[1].graph.initializer if t.data_type != onnx.TensorProto.FLOAT]
    assert not set(indices).intersection(factors)


def test_weights_that_are_not_in_float32_are_refused(residual_net) -> None:  # type: ignore[no-untyped-def]
    original = residual_net("N")
    compressed = compress(original, plan=["fc2=svd:R=3"], verification=False).model
    assert trainable(original, compressed, "factors")
    with pytest.raises(ModelError, match="no weight above the factors"):
        trainable(original, compressed, "above")
    for each in compressed.graph.initializer:
        value = onnx.numpy_helper.to_array(each)
        if value.dtype == np.float32:
            each.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), each.name))
    with pytest.raises(ModelError, match="is float16; train the float32 model, then convert it"):
        trainable(original, compressed, "factors")
