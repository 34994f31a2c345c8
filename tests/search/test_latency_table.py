"""A table made in a process of its own, and searches elsewhere that go by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnx_lowrank
from onnx_lowrank.errors import PlanError
from onnx_lowrank.pipelines.budget_result import BudgetResult
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.planning.latency import SavedLatencies, Timed
from onnx_lowrank.search.timing import Stopwatch

COMMAND = [sys.executable, "-c", "from onnx_lowrank.cli import main; main()"]
NET = """
<ir_version: 8, opset_import: ["" : %(opset)d]>
net (float[N,16,%(size)s] x) => (float[N,10] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1)
    b = GlobalAveragePool(a)
    c = Flatten(b)
    y = Gemm<transB=1>(c, w2)
}
"""
SHAPES = {"w1": (64, 16, 3, 3), "w2": (10, 64)}


def net(*, seed: int = 0, size: str = "20,20", opset: int = 13) -> onnx.ModelProto:
    """Return a network whose layers are nearly of low rank, so that much is to be gained."""
    rng = np.random.default_rng(seed)
    model = parser.parse_model(NET % {"opset": opset, "size": size})
    for name, shape in SHAPES.items():
        rank, taps = 6, int(np.prod(shape[1:]))
        weight = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, taps))
        weight += 0.05 * rng.standard_normal(weight.shape)
        model.graph.initializer.append(
            numpy_helper.from_array(weight.reshape(shape).astype(np.float32), name)
        )
    for node, name in zip(model.graph.node, ("conv", "pool", "flat", "fc"), strict=True):
        node.name = name
    return model


pytestmark = pytest.mark.slow  # a table takes half a minute


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SavedLatencies:
    """Latencies by the command line, as on another machine: no file in common but the model's."""
    folder = tmp_path_factory.mktemp("there")
    onnx.save(net(), folder / "net.onnx")
    environment = {**os.environ, "ONNX_LOWRANK_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [*COMMAND, "bench", "net.onnx", "--save-latency", "latency.json", "--threads", "1"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote latency.json")
    return SavedLatencies.from_dict(json.loads((folder / "latency.json").read_text()))


def search(model: onnx.ModelProto, folder: Path, latency: SavedLatencies) -> BudgetResult:
    rng = np.random.default_rng(5)
    data = [{"x": rng.standard_normal((4, 16, 20, 20)).astype(np.float32)} for _ in range(24)]
    return onnx_lowrank.compress_to_budget(
        model, Budget(min_sqnr_db=10), data=data, latency=latency, cache_dir=folder
    )


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be timed here."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was timed on this machine")

    for way in ("compare", "in_turns"):
        monkeypatch.setattr(Stopwatch, way, refuse)


def altered(table: SavedLatencies, change: Callable[[Timed], Timed]) -> SavedLatencies:
    """Return the table with the latencies of candidates changed; layers have a ratio of 1."""
    known = {key: each if each.ratio == 1 else change(each) for key, each in table.known.items()}
    return replace(table, known=known)


@pytest.mark.usefixtures("no_clock")
def test_a_search_goes_by_the_table_and_says_so(table: SavedLatencies, tmp_path: Path) -> None:
    # Other weights: latencies do not depend on them.
    result = search(net(seed=1), tmp_path, table)
    latency = result.search.latency
    assert result.passed, result.failures
    assert result.compressed.plan.chosen
    assert latency.ratio == pytest.approx(result.search.predicted_ratio)
    assert 0 < latency.low <= latency.ratio <= latency.high < 1
    for layer in result.search.layers:
        assert Timed(1, layer.ratio, layer.low, layer.high) in {
            replace(each, seconds=1) for each in table.known.values()
        }
    assert result.predicted_for == table.origin
    assert result.to_dict()["latency_measured_here"] is False
    assert result.check_command("small.onnx") == (
        "onnx-lowrank bench MODEL small.onnx --engine cpu --batch 1 --threads 1"
    )


@pytest.mark.usefixtures("no_clock")
def test_other_latencies_give_another_plan(table: SavedLatencies, tmp_path: Path) -> None:
    first = search(net(), tmp_path, table).compressed.plan.chosen
    assert first
    # What was fast is slow there, but still pays, and the other way round.
    turned = altered(table, lambda t: Timed(t.seconds, 1 - t.ratio / 2, 0.01, 0.999))
    slow = replace(
        turned,
        known={
            key: replace(each, seconds=each.seconds / table.known[key].ratio * each.ratio)
            for key, each in turned.known.items()
        },
    )
    second = search(net(), tmp_path, slow).compressed.plan.chosen
    assert second
    assert {n: s.spec for n, s in first.items()} != {n: s.spec for n, s in second.items()}


@pytest.mark.usefixtures("no_clock")
def test_a_candidate_that_the_table_lacks_is_not_chosen(
    table: SavedLatencies, tmp_path: Path
) -> None:
    layers = {key: each for key, each in table.known.items() if each.ratio == 1}
    result = search(net(), tmp_path, replace(table, known=layers))
    assert not result.compressed.plan.chosen
    assert not result.passed


@pytest.mark.parametrize("other", [{"size": "22,22"}, {"opset": 15}])
def test_a_table_of_another_model_is_refused(
    table: SavedLatencies, tmp_path: Path, other: dict[str, int]
) -> None:
    with pytest.raises(PlanError, match="another model, input shape or opset; make them from"):
        search(net(**other), tmp_path, table)  # type: ignore[arg-type]


def test_settings_other_than_the_table_has_are_refused(
    table: SavedLatencies, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"1 thread, batch 1, not of threads 2; leave that out"):
        onnx_lowrank.compress_to_budget(
            net(),
            Budget(max_drop=1),
            data=[{"x": np.zeros((1, 16, 20, 20), np.float32)}],
            latency=table,
            threads=2,
            cache_dir=tmp_path,
        )


def test_whole_models_were_timed_there_too(table: SavedLatencies) -> None:
    assert table.assembled
    assert table.whole.ratio == 1
    assert all(0 < told < 1 for told, _ in table.assembled)
    assert table.machine["cpu"]
    assert table.threads == 1


def test_a_table_is_of_one_model_and_one_setting(tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "net.onnx")
    for wrong, why in (
        (["net.onnx", "net.onnx"], "the layers of one model"),
        (["net.onnx", "--threads", "1,2"], "give --threads one number"),
        (["net.onnx", "--data", "x"], "leave other models"),
    ):
        done = subprocess.run(
            [*COMMAND, "bench", *wrong, "--save-latency", "latency.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
