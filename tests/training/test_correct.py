"""Every corrected tensor has the original's mean and deviation, in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from builders import initializers, run, text_model

from onnx_lowrank import compress
from onnx_lowrank.data import open_dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training import correct as training

IMAGES = np.random.default_rng(3).standard_normal((10, 3, 32, 32)).astype(np.float32)


def moments(model: onnx.ModelProto, tensor: str) -> np.ndarray:
    """Mean and deviation by channel, computed by other means than the pass has."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=tensor))
    (value,) = run(copy, {model.graph.input[0].name: IMAGES})
    axes = (0, *range(2, value.ndim))
    return np.stack([value.mean(axes, np.float64), value.std(axes, dtype=np.float64)])


def correct(original: onnx.ModelProto, compressed: onnx.ModelProto) -> list[str]:
    dataset = open_dataset([{model_inputs(original)[0].name: IMAGES}], model_inputs(original))
    done = training.correct(original, compressed, dataset)
    check_model(compressed)
    assert all(each.reason is None for each in done)
    return [each.tensor for each in done]


# What is replaced, and what is corrected then: outputs of layers that the two models share.
CASES: list[tuple[list[str], list[str]]] = [
    (["conv1=mono:C=4"], ["a1", "a3", "a11", "scores"]),
    (["conv2=tucker2:R1=6,R2=6"], ["a4", "a11", "scores"]),
    (["conv2=bicluster-svd:G=2,H=2,K1=5,K2=5"], ["a4", "a11", "scores"]),
    (["conv2=bicluster-outer:G=2,H=4,K=3"], ["a4", "a11", "scores"]),
    (["conv2=spatial:R=5"], ["a4", "a11", "scores"]),
    (["fc1=svd:R=9"], ["a11", "scores"]),
    (["fc2=svd:R=3"], ["scores"]),
    (["conv1=mono:C=4", "conv2=cp:R=20", "fc1=svd:R=9"], ["a1", "a4", "a11", "scores"]),
]


@pytest.mark.parametrize(("plan", "tensors"), CASES, ids=lambda v: v[0] if v else "")
def test_means_and_deviations_are_the_originals(  # type: ignore[no-untyped-def]
    residual_net, plan: Sequence[str], tensors: list[str]
) -> None:
    original = residual_net("N")
    compressed = compress(original, plan=plan, verification=False).model
    before = compressed.SerializeToString()
    assert set(correct(original, compressed)) == set(tensors)
    assert compressed.SerializeToString() != before
    for tensor in tensors:
        expected, found = moments(original, tensor), moments(compressed, tensor)
        # Float32 sums of at most 288 products, and weights rounded once more.
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_bias_is_added_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    model = text_model(
        "net (float[N,3,32,32] x) => (float[N,4,28,28] y)\n"
        "{ [one] a = Conv(x, w) [relu] b = Relu(a) [two] y = Conv(b, v) }",
        {
            "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
            "v": rng.standard_normal((4, 6, 3, 3)).astype(np.float32),
        },
    )
    compressed = compress(model, plan=["one=spatial:R=2"], verification=False).model
    assert all(len(node.input) == 2 for node in compressed.graph.node if node.op_type == "Conv")
    assert correct(model, compressed) == ["a", "y"]
    assert sum(len(node.input) == 3 for node in compressed.graph.node) == 2
    expected, found = moments(model, "y"), moments(compressed, "y")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_normalisation_behind_another_op_takes_other_statistics() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": (8, 3, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "v": (4, 8, 3, 3)}
    values = {name: rng.standard_normal(shape) for name, shape in weights.items()}
    values |= {"variance": rng.uniform(1, 9, 8), "u": np.zeros(4)}
    model = text_model(
        "net (float[N,3,32,32] x) => (float[N,4,28,28] y)\n"
        "{ [one] a = Conv(x, w) [relu] b = Relu(a) "
        "[bn] c = BatchNormalization(b, scale, shift, mean, variance) [two] y = Conv(c, v, u) }",
        {name: value.astype(np.float32) for name, value in values.items()},
    )
    compressed = compress(model, plan=["one=spatial:R=2"], verification=False).model
    assert correct(model, compressed) == ["a", "b", "y"]
    for tensor in ("c", "y"):
        expected, found = moments(model, tensor), moments(compressed, tensor)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    kept = initializers(compressed)
    for name in ("scale", "shift", "v"):
        same = np.array_equal(kept[name], initializers(model)[name])
        assert same == (name != "v")


def test_an_equal_model_stays_nearly_as_it_is(residual_net) -> None:  # type: ignore[no-untyped-def]
    original = residual_net("N")
    compressed = compress(original, plan=["fc1=svd:R=64"], verification=False).model
    (before,) = run(compressed, {"image": IMAGES})
    correct(original, compressed)
    (after,) = run(compressed, {"image": IMAGES})
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())


def test_what_cannot_be_is_said(residual_net) -> None:  # type: ignore[no-untyped-def]
    model = residual_net("N")
    dataset = open_dataset([{"image": IMAGES}], model_inputs(model))
    with pytest.raises(ModelError, match="no weight that the original lacks"):
        training.correct(model, residual_net("N"), dataset)
    compressed = compress(model, plan=["fc1=svd:R=9"], verification=False).model
    huge = open_dataset([{"image": np.full_like(IMAGES, 1e38)}], model_inputs(model))
    with pytest.raises(DataError, match="NaN or Inf in tensor"):
        training.correct(model, compressed, huge)
