from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.bounds import SQNR_CAP_DB
from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.measure.score import Score
from onnx_lowrank.measure.verification import Tolerance, verify
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import CPU
from onnx_lowrank.search.prediction import CountPredictor, MeanPredictor
from onnx_lowrank.search.quality import Quality
from onnx_lowrank.search.quality_meter import QualityMeter

NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,8] x) => (float[N,4] y) {
    logits = MatMul(x, w)
    y = %s(logits)
}
"""


def net(weight: np.ndarray, last: str = "Softmax") -> onnx.ModelProto:
    model = parser.parse_model(NET % last)
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "w"))
    return model


def data(model: onnx.ModelProto, x: np.ndarray, labels: np.ndarray | None) -> Dataset:
    feeds = {"x": x.astype(np.float32)}
    source = [feeds if labels is None else (feeds, labels)]
    return open_dataset(source, model_inputs(model), batch=7)


def case(noise: float, samples: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((8, 4))
    return weight, weight + noise * rng.standard_normal((8, 4)), rng.standard_normal((samples, 8))


@pytest.mark.parametrize("last", ["Softmax", "Identity"])
def test_figures_agree_with_their_definitions(last: str) -> None:
    weight, other, x = case(0.1)
    model = net(weight, last)
    quality = QualityMeter(model, data(model, x, None)).measure(net(other, last))
    a, b = x @ weight, x @ other
    first, second = a.argmax(axis=1), b.argmax(axis=1)
    assert quality.samples == 300
    assert quality.drop == pytest.approx(100 * np.mean(first != second))
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    # Float32 scores: relative errors of 1e-7, some hundred times larger in a logarithm's argument.
    assert quality.noise == pytest.approx(np.sum((a - b) ** 2) / np.sum(a**2), rel=1e-4)


def test_a_probe_takes_some_batches_from_all_over() -> None:
    weight, other, x = case(0.1)
    model = net(weight, "Identity")
    found = QualityMeter(model, data(model, x, None)).noise(net(other, "Identity"), samples=32)
    # 43 batches of 7: every 9th is 35 samples.
    chosen = np.concatenate([np.arange(first, first + 7) for first in range(0, 300, 63)])
    a, b = x[chosen] @ weight, x[chosen] @ other
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    assert found == pytest.approx(np.sum((a - b) ** 2) / np.sum(a**2), rel=1e-4)


def test_expected_points_lost_are_near_the_counted_ones() -> None:
    weight, other, x = case(0.2, samples=4000)
    model = net(weight)
    quality = QualityMeter(model, data(model, x, None)).measure(net(other))
    assert quality.drop is not None
    assert quality.expected_drop is not None
    # 4000 samples: the count has a standard error of half a point; the model of the errors is
    # rougher than that, within a third of the points.
    assert quality.expected_drop == pytest.approx(quality.drop, rel=0.33, abs=0.5)


def test_with_labels_accuracy_counts_and_may_rise() -> None:
    weight, other, x = case(0.3)
    model = net(weight)
    labels = (x @ other).argmax(axis=1)
    quality = QualityMeter(model, data(model, x, labels)).measure(net(other))
    agreement = np.mean((x @ weight).argmax(axis=1) == labels)
    assert quality.drop == pytest.approx(100 * (agreement - 1))
    assert quality.drop < 0
    # Errors of this size alone would lose some; 41 gained and none lost tell more.
    assert quality.expected_drop is not None
    assert quality.expected_drop > 0
    assert quality.within(Budget(max_drop=0))
    assert quality.margins is not None
    assert (quality.margins.lost, quality.margins.gained) == (0, 41)


def test_the_model_itself_loses_nothing() -> None:
    weight, _, x = case(0)
    model = net(weight)
    quality = QualityMeter(model, data(model, x, None)).measure(model)
    assert (quality.noise, quality.drop) == (0, 0)
    assert quality.sqnr_db == SQNR_CAP_DB
    assert quality.within(Budget(min_sqnr_db=200, max_drop=1e-9))


def test_a_ratio_at_its_bound_is_not_within_it() -> None:
    weight, other, x = case(0.1)
    model = net(weight, "Identity")
    quality = QualityMeter(model, data(model, x, None)).measure(net(other, "Identity"))
    told = quality.sqnr
    assert told is not None
    assert told.value == quality.sqnr_db
    assert not quality.within(Budget(min_sqnr_db=quality.sqnr_db))
    # Of as many samples again, by Student's distribution of 19 degrees at 0.9.
    room = 1.3277 * told.error * np.sqrt(2)
    assert not quality.within(Budget(min_sqnr_db=quality.sqnr_db - 0.99 * room))
    assert quality.within(Budget(min_sqnr_db=quality.sqnr_db - 1.01 * room))
    fewer = Budget(min_sqnr_db=quality.sqnr_db - 1.01 * room)
    assert not quality.within(fewer, unseen=20)
    assert Quality.from_dict(quality.to_dict()) == quality


def test_a_model_without_float_outputs_is_refused() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> net (float[N,8] x) => (int64[N] y) '
        "{ y = ArgMax<axis=1, keepdims=0>(x) }"
    )
    with pytest.raises(ModelError, match="there is no loss to measure"):
        QualityMeter(model, data(model, np.zeros((2, 8)), None))


def test_a_score_of_the_user_takes_the_place_of_points() -> None:
    weight, other, x = case(0.2)
    model, compressed = net(weight, "Identity"), net(other, "Identity")
    labels = (x @ weight).argmax(axis=1)
    seen = []

    def likelihood(
        outputs: dict[str, np.ndarray], reference: dict[str, np.ndarray], labels: np.ndarray
    ) -> float:
        seen.append(reference["y"])
        logits = outputs["y"].astype(float)
        rest = np.log(np.exp(logits).sum(axis=1))
        return float(np.mean(logits[np.arange(len(logits)), labels] - rest))

    meter = QualityMeter(model, data(model, x, labels), score=Score("likelihood", likelihood))
    quality = meter.measure(compressed)
    first, second = (x @ w for w in (weight, other))
    expected = likelihood({"y": first}, {"y": first}, labels)
    expected -= likelihood({"y": second}, {"y": first}, labels)
    # Float32 outputs of size 3: errors of 1e-6 in a mean.
    assert quality.drop == pytest.approx(expected, abs=3e-6)
    assert quality.expected_drop is None
    assert quality.within(Budget(max_drop=expected + 1e-5, score=likelihood))
    assert not quality.within(Budget(max_drop=expected - 1e-5, score=likelihood))
    np.testing.assert_allclose(seen[0], first, rtol=1e-5, atol=1e-6)
    predictor = meter.predictor(compressed, Budget(max_drop=1, score=likelihood))
    assert isinstance(predictor, MeanPredictor)
    assert predictor.value == pytest.approx(quality.drop)
    assert predictor.predict(300).holds(quality.drop)


def test_a_failing_score_is_said_before_anything_is_measured() -> None:
    weight, _, x = case(0)
    model = net(weight)
    with pytest.raises(DataError, match="the score 'broken' returned nan"):
        QualityMeter(model, data(model, x, None), score=Score("broken", lambda *_: math.nan))


@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_expected_of_others_is_what_was_counted(labelled: bool) -> None:
    weight, other, x = case(0.2)
    model = net(weight)
    labels = (x @ other).argmax(axis=1) if labelled else None
    meter = QualityMeter(model, data(model, x, labels))
    quality = meter.measure(net(other))
    predictor = meter.predictor(net(other), Budget(max_drop=1))
    assert isinstance(predictor, CountPredictor)
    prediction = predictor.predict(300)
    assert prediction.quantity == ("accuracy" if labelled else "agreement")
    assert prediction.value == pytest.approx(quality.drop)
    assert prediction.low < prediction.value < prediction.high


def test_where_only_the_signal_is_bounded_it_is_what_is_expected() -> None:
    weight, other, x = case(0.2)
    model = net(weight, "Identity")
    meter = QualityMeter(model, data(model, x, None))
    quality = meter.measure(net(other, "Identity"))
    predictor = meter.predictor(net(other, "Identity"), Budget(min_sqnr_db=5))
    assert predictor is not None
    prediction = predictor.predict(300)
    assert prediction.quantity == "sqnr_db"
    assert prediction.value == pytest.approx(quality.sqnr_db)
    assert 0 < prediction.high - prediction.low < 6
    assert meter.predictor(model, Budget(min_sqnr_db=5)) is None  # no error to tell of


DETECTOR = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,8,30] x) => (float[N,5,30] y) {
    boxes = MatMul(big, x)
    logit = MatMul(small, x)
    score = Sigmoid(logit)
    y = Concat<axis=1>(boxes, score)
}
"""


def detector(boxes: np.ndarray, scores: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(DETECTOR)
    for name, value in (("big", boxes), ("small", scores)):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


def test_an_output_of_mixed_scales_is_measured_as_in_the_verdict() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = 100 * rng.standard_normal((4, 8)), rng.standard_normal((1, 8))
    model, lost = detector(boxes, scores), detector(boxes, 0 * scores)
    x = rng.standard_normal((40, 8, 30)).astype(np.float32)
    dataset = open_dataset([{"x": x}], model_inputs(model), batch=8)
    quality = QualityMeter(model, dataset).measure(lost)
    report = verify(model, lost, dataset, engines=[CPU], tolerance=Tolerance(min_sqnr_db=25))
    (output,) = report.to_dict()["outputs"]
    assert output["parts"][1]["part"] == "y[:, 4]"
    assert quality.sqnr_db == pytest.approx(output["sqnr_db"], abs=1e-9)
    assert quality.sqnr_db < 10  # of the whole output it is above 40 dB
    assert not quality.within(Budget(min_sqnr_db=25))
    assert not report.passed


def test_agreement_of_one_class_is_held_to_the_scores_as_in_the_verdict() -> None:
    weight, other, x = case(0.01)
    x = np.concatenate([x, 30 + 0 * x[:, :1]], axis=1)[:, 1:]
    weight[-1] = other[-1] = [1, 0, 0, 0]  # the last input is a bias: class 0 wins
    model = net(weight, "Identity")
    mean = np.zeros_like(weight)
    mean[-1] = (x @ weight).mean(axis=0) / 30
    meter = QualityMeter(model, data(model, x, None))
    budget = Budget(max_drop=5)
    for candidate, good in ((net(mean, "Identity"), False), (net(other, "Identity"), True)):
        quality = meter.measure(candidate)
        assert (quality.common, quality.drop) == (1, 0)
        assert quality.within(budget) == good
        assert (meter.chance(candidate, budget, 100) >= 0.9) == good
        assert Quality.from_dict(quality.to_dict()) == quality
        report = verify(
            model,
            candidate,
            data(model, x, None),
            engines=[CPU],
            tolerance=Tolerance(min_top1=0.95),
        )
        assert report.passed == good
    assert meter.measure(net(mean, "Identity")).varying_db == pytest.approx(0, abs=1e-3)


def test_outputs_that_are_not_finite_are_beyond_any_bound() -> None:
    weight, _, x = case(0.1)
    model, broken = net(weight, "Identity"), net(np.full_like(weight, np.nan), "Identity")
    meter = QualityMeter(model, data(model, x, None))
    quality = meter.measure(broken)
    json.dumps(quality.to_dict(), allow_nan=False)
    assert not quality.within(Budget(min_sqnr_db=-300))
    assert not quality.within(Budget(max_drop=99))
    assert meter.chance(broken, Budget(min_sqnr_db=-300), 10) == 0
    assert meter.noise(broken) == quality.noise


def test_outputs_of_other_lengths_in_every_batch_are_no_classes() -> None:
    model = parser.parse_model(NET.replace("N,8", "N,W").replace("N,4", "N,W") % "Relu")
    del model.graph.node[0]
    model.graph.node[0].input[0] = "x"
    feeds = [{"x": np.ones((1, width), np.float32)} for width in (12, 14, 9)]
    meter = QualityMeter(model, open_dataset(feeds, model_inputs(model)))
    quality = meter.measure(model)
    assert (quality.samples, quality.drop) == (3, None)
