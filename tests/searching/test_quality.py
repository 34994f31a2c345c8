from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import ModelError
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.searching.quality import QualityMeter

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
    assert quality.within(Budget(max_drop=0)) == (
        max(quality.drop, quality.expected_drop or 0) <= 0
    )


def test_the_model_itself_loses_nothing() -> None:
    weight, _, x = case(0)
    model = net(weight)
    quality = QualityMeter(model, data(model, x, None)).measure(model)
    assert (quality.noise, quality.drop) == (0, 0)
    assert math.isinf(quality.sqnr_db)
    assert quality.within(Budget(min_sqnr_db=200, max_drop=1e-9))


def test_a_model_without_float_outputs_is_refused() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> net (float[N,8] x) => (int64[N] y) '
        "{ y = ArgMax<axis=1, keepdims=0>(x) }"
    )
    with pytest.raises(ModelError, match="there is no loss to measure"):
        QualityMeter(model, data(model, np.zeros((2, 8)), None))
