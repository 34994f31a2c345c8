"""Two models in onnxruntime: what is equal passes, what is not is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError, ModelError, ProviderError
from onnx_lowrank.measure.verification import Tolerance, VerifyReport, verify
from onnx_lowrank.runtime import available_providers, model_inputs
from onnx_lowrank.runtime.engines import CPU, ENGINES

CUDA = "CUDAExecutionProvider" in available_providers()
Array = NDArray[np.float64]


def classifier(
    weight: Array,
    bias: Array,
    *,
    rank: int | None = None,
    batch: int | str = "N",
    spatial: bool = False,
    head: str | None = None,
    output: str = "scores",
) -> onnx.ModelProto:
    """A linear classifier of 8x8 images, its matrix cut to a rank."""
    initializers = {"b": bias.astype(np.float32)}
    nodes = [helper.make_node("Flatten", ["image"], ["flat"])]
    if rank is None:
        initializers["w"] = weight.astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["flat", "w"], ["product"]))
    else:
        u, s, vt = np.linalg.svd(weight, full_matrices=False)
        initializers["u"] = (u[:, :rank] * s[:rank]).astype(np.float32)
        initializers["v"] = vt[:rank].astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["flat", "u"], ["low"]))
        nodes.append(helper.make_node("MatMul", ["low", "v"], ["product"]))
    last = output if head is None and not spatial else "sum"
    nodes.append(helper.make_node("Add", ["product", "b"], [last]))
    shape: list[Any] = [batch, 10]
    element = TensorProto.FLOAT
    if spatial:
        initializers["shape"] = np.array([-1, 10, 1, 1])
        nodes.append(helper.make_node("Reshape", ["sum", "shape"], [output]))
        shape += [1, 1]
    elif head == "Softmax":
        nodes.append(helper.make_node("Softmax", ["sum"], [output], axis=1))
    elif head == "ArgMax":
        nodes.append(helper.make_node("ArgMax", ["sum"], [output], axis=1, keepdims=0))
        shape, element = [batch], TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info(output, element, shape)],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Weight, bias, and held-out images with labels of a classifier trained on real digits."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    trained = LogisticRegression(max_iter=500).fit(images[:1200], labels[:1200])
    return trained.coef_.T, trained.intercept_, images[1200:].reshape(-1, 1, 8, 8), labels[1200:]


def data(model: onnx.ModelProto, images: Array, labels: Any = None, **options: Any) -> Dataset:
    feeds = [{"image": images}] if labels is None else [({"image": images}, labels)]
    return open_dataset(feeds, model_inputs(model), **options)


@pytest.mark.parametrize("head", [None, "Softmax"])
def test_a_real_classifier_cut_to_a_rank_loses_what_numpy_says(digits: Any, head: str) -> None:
    weight, bias, images, labels = digits
    original = classifier(weight, bias, head=head)
    compressed = classifier(weight, bias, rank=6, head=head)
    report = verify(original, compressed, data(original, images, labels, batch=64))
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    flat = images.reshape(len(images), -1)
    a, b = flat @ weight + bias, flat @ (u[:, :6] * s[:6]) @ vt[:6] + bias
    ours, theirs = a.argmax(1), b.argmax(1)
    accuracy = report.to_dict()["accuracy"]
    # Counts: float32 could only change them at ties closer than its rounding, of which there are
    # none.
    assert accuracy["original"] == np.mean(ours == labels)
    assert accuracy["compressed"] == np.mean(theirs == labels)
    assert report.to_dict()["agreement"]["top1"] == np.mean(ours == theirs)
    assert accuracy["original"] > 0.85  # a classifier, and labels that belong to it
    assert report.samples == len(images)
    if head is None:
        (output,) = report.to_dict()["outputs"]
        sqnr = 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum())
        # float32: 64 products per score, relative to an error about 0.1 of the scores or more.
        assert output["sqnr_db"] == pytest.approx(sqnr, abs=10 * 64 * 2**-24 * 10)
        assert output["max_abs"] == pytest.approx(np.abs(a - b).max(), rel=64 * 2**-24 * 10)


def test_the_verdict_follows_the_tolerance(digits: Any) -> None:
    weight, bias, images, labels = digits
    original, compressed = classifier(weight, bias), classifier(weight, bias, rank=4)
    dataset = data(original, images, labels)

    def failures(**tolerance: Any) -> tuple[str, ...]:
        off = {"min_sqnr_db": None, "max_drop": None, "min_top1": None, "min_equal": None}
        return verify(
            original, compressed, dataset, tolerance=Tolerance(**{**off, **tolerance})
        ).failures

    assert failures() == ()
    (failure,) = failures(min_sqnr_db=60)
    assert failure.startswith("CPU: output 'scores': SQNR ")
    assert failure.endswith(" dB is below 60 dB")
    (failure,) = failures(max_drop=1.0)
    assert failure.startswith("CPU: accuracy fell by ")
    (failure,) = failures(min_top1=0.99)
    assert failure.startswith("CPU: top-1 agreement 0.")
    assert failures(max_drop=60, min_top1=0.2, min_sqnr_db=1) == ()


def test_equal_models_pass_on_random_samples(digits: Any, tmp_path: Path) -> None:
    model = classifier(*digits[:2])
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    report = verify(path, model)
    assert report.passed
    assert report.samples == 8
    found = report.to_dict()
    assert found["outputs"] == [
        {"name": "scores", "max_abs": 0.0, "rms": 0.0, "sqnr_db": 300.0, "cosine": 1.0}
    ]
    assert found["agreement"] == {"top1": 1.0, "top5": 1.0}
    assert found["accuracy"] == {}
    json.dumps(found, allow_nan=False)


def test_a_full_rank_factorisation_is_equal_up_to_rounding(digits: Any) -> None:
    weight, bias, images, _ = digits
    original = classifier(weight, bias)
    report = verify(original, classifier(weight, bias, rank=10), data(original, images))
    (output,) = report.to_dict()["outputs"]
    # Per score an error of at most (64 + 10) eps sum|x||w|, here within 20 times the score's own
    # size.
    assert output["sqnr_db"] > -20 * np.log10(74 * 2**-24 * 20)


@pytest.mark.parametrize("batch", [1, 7])
def test_padding_of_a_fixed_batch_is_not_counted(digits: Any, batch: int) -> None:
    weight, bias, images, labels = digits
    images, labels = images[:20], labels[:20]
    free = classifier(weight, bias), classifier(weight, bias, rank=5)
    fixed = classifier(weight, bias, batch=batch), classifier(weight, bias, rank=5, batch=batch)
    expected = verify(*free, data(free[0], images, labels)).to_dict()
    found = verify(*fixed, data(fixed[0], images, labels)).to_dict()
    assert found["samples"] == 20
    assert found["accuracy"] == expected["accuracy"]
    assert found["agreement"] == expected["agreement"]
    for key, value in expected["outputs"][0].items():
        if key != "name":
            # The same sums; only the products' order may differ with the batch.
            assert found["outputs"][0][key] == pytest.approx(value, rel=1e-4)


def test_scores_with_two_spatial_axes_of_one_are_classes_too(digits: Any) -> None:
    weight, bias, images, labels = digits
    flat = classifier(weight, bias), classifier(weight, bias, rank=5)
    deep = classifier(weight, bias, spatial=True), classifier(weight, bias, rank=5, spatial=True)
    assert (
        verify(*deep, data(deep[0], images, labels)).to_dict()["accuracy"]
        == verify(*flat, data(flat[0], images, labels)).to_dict()["accuracy"]
    )


def test_an_output_of_class_numbers_is_compared_for_equality(digits: Any) -> None:
    weight, bias, images, labels = digits
    models = (
        classifier(weight, bias, head="ArgMax"),
        classifier(weight, bias, rank=3, head="ArgMax"),
    )
    report = verify(*models, data(models[0], images, labels))
    (output,) = report.to_dict()["outputs"]
    scores = classifier(weight, bias), classifier(weight, bias, rank=3)
    top1 = verify(*scores, data(scores[0], images)).to_dict()["agreement"]["top1"]
    assert output["equal"] == top1 < 0.9
    assert [output[k] for k in ("max_abs", "rms", "sqnr_db", "cosine")] == [None] * 4
    assert not report.passed
    assert "fewer than 90 %" in report.failures[0]
    assert report.notes == ("accuracy was not measured: no output is [N, classes]",)
    with pytest.raises(DataError, match=r"'scores' is not .N, classes."):
        verify(*models, data(models[0], images), output="scores")
    failures = verify(models[0], models[0], tolerance=Tolerance(min_top1=0.5)).failures
    assert failures == (
        "CPU: not measured: a top-1 agreement of 0.5 is asked for, but no output is [N, classes]; "
        "bound --min-sqnr instead",
    )


def two_heads(weight: Array, bias: Array, gain: float = 1.0) -> onnx.ModelProto:
    """A classifier with its scores twice: plain, and multiplied."""
    model = classifier(weight, bias)
    model.graph.initializer.append(numpy_helper.from_array(np.array(gain, np.float32), "gain"))
    model.graph.node.append(helper.make_node("Mul", ["scores", "gain"], ["more"]))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 10]))
    return model


def test_several_scores_need_a_choice(digits: Any) -> None:
    weight, bias, images, labels = digits
    models = two_heads(weight, bias), two_heads(weight, bias, -1.0)
    dataset = data(models[0], images, labels)
    report = verify(*models, dataset)
    assert report.classifier is None
    assert report.to_dict()["agreement"] == {"top1": None, "top5": None}
    assert report.notes == ("classes were not compared: name one of the outputs scores, more",)
    (failure,) = report.failures
    assert failure.startswith("CPU: output 'more': SQNR -6.02 dB")
    assert verify(*models, dataset, output="scores").to_dict()["agreement"]["top1"] == 1.0
    assert verify(*models, dataset, output="more").to_dict()["agreement"]["top1"] < 0.1
    with pytest.raises(DataError, match="no output 'mor'; it has scores, more"):
        verify(*models, dataset, output="mor")


def failed(report: VerifyReport) -> str:
    assert not report.passed
    assert report.to_dict()["passed"] is False
    json.dumps(report.to_dict(), allow_nan=False)
    return " | ".join(report.failures)


def test_missing_renamed_and_retyped_outputs_fail(digits: Any) -> None:
    weight, bias, *_ = digits
    original = classifier(weight, bias)
    text = failed(verify(original, classifier(weight, bias, output="other")))
    assert "output 'scores' is missing in the compressed model, which has other" in text
    assert "output 'other' of the compressed model is not in the original" in text
    text = failed(verify(two_heads(weight, bias), original))
    assert "output 'more' is missing" in text
    text = failed(verify(original, classifier(weight, bias, head="ArgMax")))
    assert "output 'scores' is tensor(int64) instead of tensor(float)" in text


def test_other_inputs_fail_without_running(digits: Any) -> None:
    original = classifier(*digits[:2])
    renamed = classifier(*digits[:2])
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "picture"
    report = verify(original, renamed)
    assert "input 'image' is missing in the compressed model, which has picture" in failed(report)
    assert report.samples == 0
    assert report.to_dict()["outputs"] == []


def test_other_shapes_and_nan_fail(digits: Any) -> None:
    weight, bias, images, labels = digits
    original = classifier(weight, bias)
    dataset = data(original, images, labels)
    text = failed(verify(original, classifier(weight, bias, spatial=True), dataset))
    assert "has shape [8, 10, 1, 1] instead of [8, 10]" in text
    broken = bias.copy()
    broken[3] = np.nan
    text = failed(verify(original, classifier(weight, broken), dataset))
    assert f"NaN or Inf in {len(images)} values of the compressed model" in text


def test_labels_out_of_range_and_empty_data_are_bad_input(digits: Any) -> None:
    weight, bias, images, labels = digits
    model = classifier(weight, bias)
    with pytest.raises(DataError, match="label 10 is out of range: the model has 10 classes"):
        verify(model, model, data(model, images, labels + 1))
    with pytest.raises(DataError, match="no sample"):
        verify(model, model, data(model, images[:0]))


def test_models_that_do_not_load_are_bad_input(digits: Any, tmp_path: Path) -> None:
    model = classifier(*digits[:2])
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"cannot load .*bad\.onnx"):
        verify(model, tmp_path / "bad.onnx")


@pytest.mark.skipif(CUDA, reason="this onnxruntime has the CUDA provider")
def test_what_was_not_checked_on_cuda_is_said(digits: Any) -> None:
    model = classifier(*digits[:2])
    providers = verify(model, model).to_dict()["providers"]
    assert providers["cpu"]["checked"] is True
    assert providers["cpu"]["outputs"][0]["name"] == "scores"
    assert providers["cuda"]["checked"] is False
    assert providers["cuda"]["reason"].startswith("no CUDA provider; found ")
    asked = verify(model, model, engines=[CPU]).to_dict()["providers"]["cuda"]
    assert asked == {"checked": False, "reason": "not asked for"}
    with pytest.raises(ProviderError, match=r"no CUDA provider; .*install onnx_lowrank\[gpu\]"):
        verify(model, model, engines=[CPU, ENGINES["cuda"]])
    with pytest.raises(ProviderError, match="there is no engine to verify in"):
        verify(model, model, engines=[])


@pytest.mark.skipif(not CUDA, reason="needs the CUDA provider")
def test_both_providers_are_checked_where_they_are(digits: Any) -> None:
    weight, bias, images, labels = digits
    model = classifier(weight, bias)
    found = verify(model, classifier(weight, bias, rank=10), data(model, images, labels)).to_dict()
    assert found["providers"]["cuda"]["checked"] is True
    assert found["providers"]["cuda"]["accuracy"] == found["accuracy"]


def test_the_samples_left_open_by_the_model_are_asked_for() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    with pytest.raises(DataError, match="--input-shape x=1,3,224,224"):
        verify(model, model)
    report = verify(model, model, input_shapes={"x": (1, 3, 5, 6)})
    assert report.passed
    assert report.classifier is None


def test_a_model_whose_outputs_cannot_be_compared_fails() -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])],
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    report = verify(model, model)
    assert "no output is a tensor; there is nothing to compare" in failed(report)
    assert report.notes == ("output 'y' is a seq(tensor(float)), which is not compared",)


@pytest.mark.parametrize("labelled", [False, True])
def test_outputs_of_other_lengths_in_every_batch_are_no_classes(labelled: bool) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "W"])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    feeds: list[Any] = [{"x": np.ones((1, width))} for width in (12, 14, 9)]
    if labelled:
        feeds = [(feed, [0]) for feed in feeds]
    report = verify(model, model, open_dataset(feeds, model_inputs(model)))
    assert report.samples == 3
    assert report.classifier is None
    assert report.passed is not labelled  # accuracy was not measured
    why = "output 'y' has not the same classes in every batch"
    assert f"classes were not compared: {why}" in report.notes
