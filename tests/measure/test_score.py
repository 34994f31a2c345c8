"""A user's score: how it is loaded and called, and what is said of one that is at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnx_lowrank
from onnx_lowrank.errors import DataError
from onnx_lowrank.measure.score import OutputRows, Score

NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,6] x) => (float[N,4] y, int64[N] best, float s) {
    y = MatMul(x, w)
    best = ArgMax<axis=1, keepdims=0>(y)
    s = ReduceSum<keepdims=0>(y)
}
"""
X = {"y": np.arange(8.0).reshape(2, 4)}


def net(noise: float) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 4)) + noise * np.random.default_rng(1).standard_normal((6, 4))
    model = parser.parse_model(NET)
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "w"))
    return model


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Write a module into the working directory, under a name of its own."""
    name = f"my_score_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def mse(outputs, reference, labels):\n"
        "    return -np.mean((outputs['y'] - reference['y']) ** 2)\n"
        "def fails(outputs, reference, labels):\n"
        "    raise ValueError('no ground\\ntruth')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return name


def test_a_callable_of_a_module_in_the_working_directory(module: str) -> None:
    score = Score.open(f"{module}:mse")
    assert score(X, {"y": X["y"] + 2}, None) == -4
    assert score.digest is not None
    assert score.digest != Score.open(f"{module}:fails").digest
    assert Score.open(lambda *_: 1.0).digest is None  # what it holds cannot be told


@pytest.mark.parametrize(
    ("suffix", "says"),
    [
        ("", "cannot read the score .* give module:callable"),
        (":missing", "cannot load .* has no attribute 'missing'"),
        (":number", r"is not callable; give score\(outputs, reference, labels\)"),
    ],
)
def test_what_is_no_callable_is_said(module: str, suffix: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Score.open(module + suffix)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "returned nan; it should return a finite number"),
        (-np.inf, "returned -inf"),
        (None, "returned a NoneType; it should return one number"),
        ("1", "returned a str"),
        (True, "returned a bool"),
        (np.zeros(2), "returned a ndarray"),
        ([[1], [2, 3]], "returned a list"),
        (1j, "returned a complex"),
    ],
)
def test_only_one_finite_number_is_taken(value: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Score("s", lambda *_: value)(X, X, None)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2), np.int64(2)])
def test_numbers_of_any_type_are_taken(value: Any) -> None:
    assert Score("s", lambda *_: value)(X, X, None) == 2.0


def test_a_score_that_raises_is_one_sentence(module: str) -> None:
    with pytest.raises(DataError, match="failed: ValueError: no ground\ntruth; repair it"):
        Score.open(f"{module}:fails")(X, X, None)


def test_a_score_cannot_change_what_it_gets() -> None:
    def spoil(outputs: Any, reference: Any, labels: Any) -> float:
        outputs["y"][:] = 0
        return 0.0

    with pytest.raises(DataError, match="read-only"):
        Score("spoil", spoil)(X, X, None)


def test_rows_are_put_together_and_the_rest_left_out() -> None:
    rows = OutputRows()
    rows.add({"y": np.ones((3, 2)), "s": np.array(1.0), "t": np.ones((2, 3))}, 3)
    rows.add({"y": np.zeros((2, 2)), "s": np.array(2.0), "t": np.ones((2, 3))}, 2)
    found = rows.result()
    assert list(found) == ["y"]  # the table t has two rows whatever the samples
    assert found["y"].sum(axis=1).tolist() == [2, 2, 2, 0, 0]
    rows.add({"y": np.zeros((2, 5))}, 2)
    with pytest.raises(DataError, match="differs in size between samples"):
        rows.result()
    rows = OutputRows()
    rows.add({"s": np.array(1.0)}, 3)
    with pytest.raises(DataError, match="no output has one row for each sample"):
        rows.result()


def test_verify_holds_the_loss_of_it_to_its_bound(module: str) -> None:
    rng = np.random.default_rng(2)
    feeds = [{"x": rng.standard_normal((7, 6)).astype(np.float32)} for _ in range(5)]
    loss = 0.0
    for feed in feeds:
        weights = [numpy_helper.to_array(net(noise).graph.initializer[0]) for noise in (0, 0.1)]
        loss += np.sum((feed["x"] @ (weights[0] - weights[1])) ** 2) / (35 * 4)
    for most, passed in ((1.01 * loss, True), (0.99 * loss, False)):
        report = onnx_lowrank.verify(
            net(0),
            net(0.1),
            data=feeds,
            score=f"{module}:mse",
            tolerance=onnx_lowrank.Tolerance(min_sqnr_db=None, min_equal=None, max_score_drop=most),
        )
        (result,) = report.results.values()
        assert result.score["original"] == 0
        # Differences of float32 outputs of size 1: errors of 1e-7 beside 0.1.
        assert result.score["drop"] == pytest.approx(loss, rel=1e-5)
        assert report.passed == passed
    assert "at most" in report.failures[0]
    assert report.to_dict()["score"] == result.score
