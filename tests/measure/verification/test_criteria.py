"""What is asked for and what not, and that what was not measured does not pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.measure.verification import Tolerance, VerifyReport, verify
from onnx_lowrank.measure.verification.classification import Classification
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import CPU

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((8, 4))
X = RNG.standard_normal((200, 8)).astype(np.float32)


def net(
    weight: NDArray[Any] = WEIGHT, bias: Any = 0.0, *, last: str = "Identity", axes: str = ""
) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> net (float[N,8] x) => (float[N,4{axes}] y) '
        "{ p = MatMul(x, w)\n q = Add(p, b)\n y = " + last + "(q) }"
    )
    bias = np.broadcast_to(np.asarray(bias, np.float32), 4)
    for name, value in (("w", weight), ("b", bias)):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


def report(
    first: onnx.ModelProto, second: onnx.ModelProto, labels: Any = None, **tolerance: Any
) -> VerifyReport:
    feeds = {"x": X}
    source = [feeds if labels is None else (feeds, labels)]
    data: Dataset = open_dataset(source, model_inputs(first), batch=64)
    asked = Tolerance(**tolerance) if tolerance else None
    return verify(first, second, data, engines=[CPU], tolerance=asked)


@pytest.mark.parametrize(
    "name", ["min_sqnr_db", "max_drop", "min_top1", "min_equal", "max_score_drop"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -301.0, 10**400, "1", True])
def test_a_bound_is_finite_and_in_its_range(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"^{name} is .*; give "):
        Tolerance(**{name: value})
    assert getattr(Tolerance(**{name: None}), name) is None
    assert getattr(Tolerance(**{name: np.float32(0.5)}), name) == 0.5


def test_without_any_bound_the_defaults_are_asked_for() -> None:
    labels = (X @ WEIGHT).argmax(axis=1)
    other = net(WEIGHT + 0.3 * np.random.default_rng(1).standard_normal((8, 4)))
    found = " | ".join(report(net(), other, labels).failures)
    assert "is below 20 dB" in found
    assert "at most 1 are allowed" in found
    assert "is below 20 dB" in " | ".join(report(net(), other).failures)


def test_one_bound_asks_for_nothing_else() -> None:
    labels = (X @ WEIGHT).argmax(axis=1)
    other = net(WEIGHT + 0.3 * np.random.default_rng(1).standard_normal((8, 4)))
    assert report(net(), other, labels, min_sqnr_db=5).passed
    assert report(net(), other, labels, max_drop=60).passed
    assert report(net(), other, labels, min_top1=0.5).passed


def test_points_that_were_not_measured_are_not_passed() -> None:
    same = net()
    (failure,) = report(same, same, max_drop=1).failures
    assert failure == (
        "CPU: not measured: accuracy may fall by 1 points, but the data have no labels; give "
        "labelled data, or bound --min-top1 instead"
    )
    (failure,) = report(same, same, max_score_drop=1).failures
    assert "not measured: the loss of a score is bounded, but there is none" in failure


EMPTY = """
<ir_version: 8, opset_import: ["" : 13]> net (float[N,8] x) => (%s[N,0] y%s)
<int64[1] s = {0}, int64[1] e = {0}, int64[1] a = {1}>
{ f = Slice(x, s, e, a)
  y = Cast<to=%d>(f)
  n = ArgMax<axis=1>(x) }
"""


@pytest.mark.parametrize("tolerance", [{"min_sqnr_db": 5}, {"min_equal": 1}, {}])
@pytest.mark.parametrize("kind", ["float", "int64"])
def test_outputs_without_values_are_not_compared(kind: str, tolerance: dict[str, Any]) -> None:
    model = parser.parse_model(EMPTY % (kind, "", {"float": 1, "int64": 7}[kind]))
    (failure,) = report(model, model, **tolerance).failures
    assert failure == "CPU: no output holds any value on these samples; give other samples"
    model = parser.parse_model(EMPTY % (kind, ", int64[N,1] n", {"float": 1, "int64": 7}[kind]))
    failures = report(model, model, **tolerance).failures
    if "min_sqnr_db" in tolerance or (not tolerance and kind == "float"):
        (failure,) = failures
        assert "was not measured: no output holds any float on these samples" in failure
    else:  # what there is, is compared
        assert failures == ()


def test_sums_beyond_all_floats_are_not_passed() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> net (float[N,8] x) => (double[N,8] y) '
        "<double g = {1e200}> { d = Cast<to=11>(x)\n y = Mul(d, g) }"
    )
    for bound in (-300.0, 20.0):
        (failure,) = report(model, model, min_sqnr_db=bound).failures
        assert "its SQNR was not measured" in failure


def constant(bias: Any) -> onnx.ModelProto:
    return net(np.zeros((8, 4)), bias)


@pytest.mark.parametrize("last", ["Identity", "Softmax"])
def test_agreement_says_nothing_where_one_class_fills_everything(last: str) -> None:
    """The mean answer, whatever the sample, agrees on every one: the scores tell them apart."""
    bias = np.array([20.0, 0, 0, 0])
    original = net(bias=bias, last=last)
    mean = (X @ WEIGHT).mean(axis=0) + bias
    destroyed = net(np.zeros((8, 4)), mean, last=last)
    found = report(original, destroyed, min_top1=0.9)
    assert found.to_dict()["agreement"]["top1"] == 1
    (failure,) = found.failures
    assert "the original puts 100.00 % of these samples into one class" in failure
    assert "0.00 dB against how they vary over the samples, below 20 dB" in failure
    assert failure.endswith("below 20 dB; give data of several classes")
    good = report(original, net(1.01 * WEIGHT, bias, last=last), min_top1=0.9)
    assert good.passed
    (note,) = good.notes
    assert "top-1 agreement says nothing here" in note
    assert "the scores count instead: SQNR 4" in note  # a hundredth of the variation: 40 dB
    assert report(original, original, min_top1=0.9).passed
    assert report(original, destroyed, min_top1=0).passed  # nothing is asked for


def test_agreement_counts_where_it_says_something() -> None:
    labels = (X @ WEIGHT).argmax(axis=1)
    share = np.bincount(labels).max() / len(labels)
    noisy = net(WEIGHT + 0.2 * np.random.default_rng(1).standard_normal((8, 4)))
    found = report(net(), noisy, min_top1=float(share) + 0.01)
    assert found.passed
    assert found.notes == ()
    assert not report(net(), noisy, min_top1=float(share) - 0.01).passed


def test_labels_of_one_class_are_noted() -> None:
    original = net(bias=np.array([20.0, 0, 0, 0]))
    found = report(original, original, np.zeros(200, np.int64))
    assert found.passed
    assert any("accuracy says little here: 100.00 %" in note for note in found.notes)


def test_the_variation_is_that_of_all_samples_whatever_the_batches() -> None:
    ours = RNG.standard_normal((50, 5)) + 1e6
    theirs = ours + 0.1 * RNG.standard_normal((50, 5))
    found = Classification()
    for start in range(0, 50, 7):
        found.add(ours[start : start + 7], theirs[start : start + 7], None)
    a, b = (each - each.mean(axis=1, keepdims=True) for each in (ours, theirs))
    expected = 10 * np.log10(np.square(a - a.mean(axis=0)).sum() / np.square(b - a).sum())
    assert found.varying_sqnr_db == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("asked", [{"min_top1": 0.9}, {"min_top1": 0.9, "min_sqnr_db": 10.0}])
def test_one_sample_says_nothing_of_the_classes(asked: dict[str, float]) -> None:
    source = [{"x": X[:1]}]
    model, other = net(), net(WEIGHT * 1.1, 0.01 * np.arange(4))
    data = open_dataset(source, model_inputs(model))
    found = verify(model, other, data, engines=[CPU], tolerance=Tolerance(**asked))
    assert not found.passed
    (failure,) = found.failures
    assert failure == (
        "CPU: not measured: on one sample, top-1 agreement cannot tell a good model from one with "
        "one answer for all; give more samples, or bound --min-sqnr alone"
    )
    assert verify(model, model, data, engines=[CPU], tolerance=Tolerance(**asked)).passed
