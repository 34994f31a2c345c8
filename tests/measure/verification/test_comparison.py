"""Statistics of outputs and classes, against the formulas applied to all data at once."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_lowrank.bounds import SQNR_CAP_DB
from onnx_lowrank.errors import DataError
from onnx_lowrank.measure.verification.classification import (
    Classification,
    paired_interval,
    wilson_interval,
)
from onnx_lowrank.measure.verification.comparison import OutputStatistics

EPS = float(np.finfo(np.float64).eps)


def statistics(*pairs: tuple[object, object]) -> OutputStatistics:
    found = OutputStatistics("y")
    for a, b in pairs:
        found.add(np.asarray(a), np.asarray(b))
    return found


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_stream_gives_the_figures_of_all_data_at_once(dtype: type) -> None:
    rng = np.random.default_rng(0)
    a: NDArray[Any] = rng.standard_normal((40, 3, 5)).astype(dtype)
    b: NDArray[Any] = (a + 0.01 * rng.standard_normal(a.shape)).astype(dtype)
    found = statistics(*((a[i : i + 7], b[i : i + 7]) for i in range(0, 40, 7))).to_dict()
    x, y = a.astype(np.float64), b.astype(np.float64)
    # Sums of n products in another order: n eps relative at most; the logarithm is 4.3 times less.
    tolerance = x.size * EPS
    assert found["max_abs"] == np.abs(y - x).max()
    assert found["rms"] == pytest.approx(np.sqrt(np.mean((y - x) ** 2)), rel=tolerance)
    expected = 10 * np.log10((x**2).sum() / ((y - x) ** 2).sum())
    assert found["sqnr_db"] == pytest.approx(expected, abs=10 * tolerance)
    cosine = (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
    assert found["cosine"] == pytest.approx(cosine, rel=2 * tolerance)
    assert set(found) == {"name", "max_abs", "rms", "sqnr_db", "cosine"}


def test_equal_zero_and_opposite_outputs_have_finite_figures() -> None:
    x, zero = np.array([3.0, 4.0]), np.zeros(2)
    cases = [
        (x, x, SQNR_CAP_DB, 1.0),
        (zero, zero, SQNR_CAP_DB, 1.0),
        (zero, x, -SQNR_CAP_DB, 0.0),
        (x, zero, 0.0, 0.0),
        (x, -x, -20 * math.log10(2), -1.0),
        (x, x * (1 + 1e-30), SQNR_CAP_DB, 1.0),
    ]
    for a, b, sqnr, cosine in cases:
        found = statistics((a, b)).to_dict()
        assert found["sqnr_db"] == pytest.approx(sqnr, abs=8 * EPS * 10)
        assert found["cosine"] == pytest.approx(cosine, abs=4 * EPS)
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("which", "model"), [(0, "original"), (1, "compressed")])
def test_values_that_are_not_finite_fail_and_leave_no_figures(
    value: float, which: int, model: str
) -> None:
    pair = [np.ones(4), np.ones(4)]
    pair[which][2] = value
    found = statistics((np.ones(4), np.ones(4)), (pair[0], pair[1]))
    (failure,) = found.failures(None, None)
    assert failure == f"output 'y': NaN or Inf in 1 values of the {model} model"
    figures = found.to_dict()
    assert [figures[k] for k in ("max_abs", "rms", "sqnr_db", "cosine")] == [None] * 4
    json.dumps(figures, allow_nan=False)


def test_the_same_nan_in_both_models_is_a_failure_of_both() -> None:
    assert len(statistics(([np.nan], [np.nan])).failures(None, None)) == 2


def test_other_shapes_fail() -> None:
    found = statistics((np.ones((2, 3)), np.ones((2, 4))))
    assert found.failures(20, 0.9) == ["output 'y' has shape [2, 4] instead of [2, 3]"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 5]),
        ([True] * 4, [True] * 3 + [False]),
        (list("abcd"), list("abcx")),
    ],
)
def test_other_types_are_compared_for_equality(a: list[object], b: list[object]) -> None:
    found = statistics((a, b), (a, a))
    assert found.to_dict()["equal"] == 7 / 8
    assert found.to_dict()["sqnr_db"] is None
    assert found.failures(20, 0.8) == []
    (failure,) = found.failures(20, 0.9)
    assert failure == "output 'y': 87.50 % of the values are equal, fewer than 90 %"


def test_the_signal_to_error_ratio_is_held_to_its_bound() -> None:
    found = statistics(([10.0, 0.0], [10.0, 1.0]))  # 20 dB
    assert found.failures(20.0, None) == []
    assert found.failures(20.01, None) == ["output 'y': SQNR 20.00 dB is below 20.01 dB"]
    assert found.failures(None, None) == []


def test_agreement_and_accuracy_are_counted_over_batches() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((50, 9)).astype(np.float32)
    b = a + rng.standard_normal(a.shape).astype(np.float32)
    labels = np.where(rng.random(50) < 0.7, a.argmax(1), rng.integers(0, 9, 50))
    found = Classification()
    for i in range(0, 50, 8):
        found.add(a[i : i + 8], b[i : i + 8], labels[i : i + 8])
    order = np.argsort(-b, axis=1)
    first = a.argmax(1)
    assert found.agreement() == {
        "top1": np.mean(order[:, 0] == first),
        "top5": np.mean([f in o[:5] for f, o in zip(first, order, strict=True)]),
    }
    accuracy = found.accuracy()
    ours, theirs = np.mean(first == labels), np.mean(order[:, 0] == labels)
    assert (accuracy["original"], accuracy["compressed"]) == (ours, theirs)
    assert accuracy["drop_points"] == pytest.approx(100 * (ours - theirs), abs=1e-12)
    assert accuracy["drop_interval"][0] < accuracy["drop_points"] < accuracy["drop_interval"][1]
    assert accuracy["samples"] == 50


@pytest.mark.parametrize("classes", [2, 5, 6])
def test_the_first_five_of_five_classes_are_no_figure(classes: int) -> None:
    found = Classification()
    found.add(np.eye(classes), -np.eye(classes), None)
    assert found.agreement() == {"top1": 0.0, "top5": None if classes <= 5 else 0.0}
    assert found.accuracy() == {}


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="label 3 is out of range: the model has 3 classes, 0 to 2"):
        Classification().add(np.eye(3), np.eye(3), np.array([0, 1, 3]))


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [
        # Newcombe (Statistics in Medicine 17, 1998), table I, method 3: to four digits.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1)),
    ],
)
def test_the_wilson_interval_is_the_published_one(
    k: int, n: int, expected: tuple[float, float]
) -> None:
    np.testing.assert_allclose(wilson_interval(k, n), expected, rtol=0, atol=0.5e-4)


def test_the_paired_interval_is_newcombes() -> None:
    # An example of that paper, given to four decimals: (both, first, second, neither).
    np.testing.assert_allclose(paired_interval(36, 12, 2, 0), (0.0569, 0.3404), atol=5e-5)


@given(*[st.integers(0, 40)] * 4)
def test_the_paired_interval_turns_with_its_samples(
    both: int, first: int, second: int, neither: int
) -> None:
    assume(both + first + second + neither > 0)
    low, high = paired_interval(both, first, second, neither)
    # Roots of sums that cancel: rounding of the sums, eps times their terms (at most 4), under a
    # root.
    tolerance = math.sqrt(16 * EPS)
    back = paired_interval(both, second, first, neither)
    np.testing.assert_allclose((-back[1], -back[0]), (low, high), atol=tolerance)
    other = paired_interval(neither, first, second, both)
    np.testing.assert_allclose(other, (low, high), atol=tolerance)
    assert -1 - tolerance <= low <= (first - second) / (both + first + second + neither) <= high


def test_the_paired_interval_covers_the_difference() -> None:
    # 95 % intervals of 2000 experiments of 60 samples; the share that cover has a standard error of
    # 0.005, and the published coverage of the method is 0.94 to 0.97 away from the corners.
    rng = np.random.default_rng(2)
    probabilities = np.array([0.7, 0.12, 0.08, 0.1])
    difference = probabilities[1] - probabilities[2]
    covered = sum(
        low <= difference <= high
        for low, high in (
            paired_interval(*map(int, rng.multinomial(60, probabilities))) for _ in range(2000)
        )
    )
    assert 0.93 < covered / 2000 < 0.99


@pytest.mark.parametrize("counts", [(5, 0, 0, 0), (0, 0, 0, 5), (0, 5, 0, 0), (1, 0, 0, 0)])
def test_the_paired_interval_is_defined_at_the_corners(counts: tuple[int, int, int, int]) -> None:
    low, high = paired_interval(*counts)
    difference = (counts[1] - counts[2]) / sum(counts)
    assert -1 <= low <= difference <= high <= 1
