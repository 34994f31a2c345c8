"""Searches on a network of many layers, whose refits lose much less than its fits."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from counting import latencies
from onnx import numpy_helper, parser

from onnx_lowrank import compress_to_budget
from onnx_lowrank.measure.verification.report import DEFAULT_SQNR_DB
from onnx_lowrank.pipelines.budget_result import BudgetResult
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.search.measured_elsewhere import MeasuredElsewhere
from onnx_lowrank.search.settings import SETTINGS, SearchSettings

DEPTH, CHANNELS, CLASSES, SIDE = 6, 32, 10, 10
CHILD = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {here!r}]
from onnx_lowrank.search.evaluator import Evaluator
from test_searches import search
from pathlib import Path

refitted, made = Evaluator.refitted, []

def killing(self, picks):
    found = refitted(self, picks)
    made.append(picks)
    if len(set(made)) == 2:  # the first wider picks are fitted, and not yet measured
        os.kill(os.getpid(), signal.SIGKILL)
    return found

Evaluator.refitted = killing
search(Path({folder!r}), min_sqnr_db=15)
"""


def network() -> onnx.ModelProto:
    """Return layers nearly of low rank, one after the other."""
    rng = np.random.default_rng(0)
    nodes, before, into = [], "x", 8
    weights = {}
    for i in range(DEPTH):
        nodes += [f"c{i} = Conv<pads=[1,1,1,1]>({before}, w{i}, b{i})", f"r{i} = Relu(c{i})"]
        low = rng.standard_normal((CHANNELS, 8)) @ rng.standard_normal((8, into * 9))
        low /= np.linalg.norm(low, axis=1, keepdims=True)
        low += 0.6 * rng.standard_normal(low.shape) / np.sqrt(into * 9)
        weights[f"w{i}"] = np.sqrt(2) * low.reshape(CHANNELS, into, 3, 3)
        weights[f"b{i}"] = 0.1 * rng.standard_normal(CHANNELS)
        before, into = f"r{i}", CHANNELS
    nodes += [f"p = GlobalAveragePool({before})", "f = Flatten(p)", "y = MatMul(f, last)"]
    weights["last"] = rng.standard_normal((CHANNELS, CLASSES))
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> '
        f"net (float[N,8,{SIDE},{SIDE}] x) => (float[N,{CLASSES}] y) {{ {chr(10).join(nodes)} }}"
    )
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    for index, node in enumerate(model.graph.node):
        node.name = f"node{index}"
    return model


class Clock(MeasuredElsewhere):
    """A machine whose time is its multiply-adds; whole models may take another time."""

    def __init__(
        self, model: onnx.ModelProto, ratio: Callable[[onnx.ModelProto, float], float] | None = None
    ) -> None:
        super().__init__(latencies(model))
        self.ratio = ratio or (lambda model, predicted: predicted)

    def models(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Any,
        predicted: Sequence[float],
        *,
        precisely: bool,
    ) -> list[Timed]:
        found = super().models(models, feeds, predicted, precisely=precisely)
        ratios = [self.ratio(*each) for each in zip(models, predicted, strict=True)]
        return [replace(each, ratio=ratio) for each, ratio in zip(found, ratios, strict=True)]


ONCE = replace(SETTINGS, most_refits=0)  # no step that goes on by refits


def search(
    folder: Path,
    samples: int = 160,
    *,
    clock: Clock | None = None,
    settings: SearchSettings = SETTINGS,
    **budget: Any,
) -> BudgetResult:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((samples, 8, SIDE, SIDE)) + 2 * rng.standard_normal((samples, 8, 1, 1))
    model = network()
    return compress_to_budget(
        model,
        Budget(**budget),
        data=[{"x": part} for part in x.astype(np.float32).reshape(-1, 4, 8, SIDE, SIDE)],
        cache_dir=folder,
        latency=clock or Clock(model),
        lowering="standard",
        settings=settings,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("least", "faster"), [(12, False), (16, True), (20, False)])
def test_a_search_goes_on_to_what_only_refits_allow(
    tmp_path: Path, least: float, faster: bool
) -> None:
    before = search(tmp_path, settings=ONCE, min_sqnr_db=least)
    kept = {path.name for path in tmp_path.glob("search/*")}
    result = search(tmp_path, min_sqnr_db=least)
    first, found = before.search, result.search
    assert found.latency.ratio <= first.latency.ratio
    assert not faster or found.latency.ratio < first.latency.ratio
    assert found.quality.sqnr_db >= least
    assert result.passed
    # The models that were measured are all told, and the result is one of them.
    more = found.explored[len(first.explored) :]
    assert found.explored[: len(first.explored)] == first.explored
    # The refit of what was chosen at least, and wider ones where it is likely to be within.
    assert 1 <= len(more) <= 1 + SETTINGS.most_refits
    assert found.quality in [each.quality for each in found.explored if each.passed]
    budget = Budget(min_sqnr_db=least)
    for each in found.explored:  # how many samples the verdict will have, an iterable does not tell
        assert each.passed == each.quality.within(budget)
    assert found.predicted_ratio == found.latency.ratio  # by latencies of another machine
    # Nothing that was known is made again; a second search makes nothing at all.
    files = {path.name for path in tmp_path.glob("search/*")}
    assert kept < files
    again = search(tmp_path, min_sqnr_db=least)
    assert {path.name for path in tmp_path.glob("search/*")} == files
    assert again.search.to_dict() == result.search.to_dict()
    assert again.compressed.model == result.compressed.model


@pytest.mark.slow
def test_where_other_samples_may_disagree_the_search_stays(tmp_path: Path) -> None:
    before = search(tmp_path, settings=ONCE, min_sqnr_db=15)
    unsure = search(tmp_path, settings=replace(SETTINGS, refit_probability=1.1), min_sqnr_db=15)
    assert unsure.search.latency == before.search.latency
    assert unsure.search.quality == before.search.quality
    assert unsure.compressed.model == before.compressed.model


@pytest.mark.slow
def test_of_fewer_operations_what_measures_too_slow_is_not_taken(tmp_path: Path) -> None:
    budget: dict[str, Any] = {"min_sqnr_db": 17, "min_speedup": 1.1, "objective": "macs"}
    before = search(tmp_path, settings=ONCE, **budget)
    wider = search(tmp_path, **budget)
    assert wider.search.layers != before.search.layers  # refits allow more
    chosen = {before.search.latency.ratio}
    late: list[float] = []

    def slow(model: onnx.ModelProto, predicted: float) -> float:
        if predicted in chosen or predicted == 1:
            return predicted
        late.append(predicted)
        return 0.95

    result = search(tmp_path, clock=Clock(network(), slow), **budget)
    assert late  # there are wider picks, and they were timed
    assert result.search.latency.ratio == before.search.latency.ratio
    assert result.passed


@pytest.mark.slow
def test_the_predicted_latency_is_what_was_said_before_the_model_was_timed(tmp_path: Path) -> None:
    first = search(tmp_path, settings=ONCE, min_sqnr_db=15).search

    def slower(model: onnx.ModelProto, predicted: float) -> float:
        return predicted if predicted == 1 else 1.05 * predicted

    clock = Clock(network(), slower)
    found = search(tmp_path, clock=clock, settings=ONCE, min_sqnr_db=15).search
    assert found.plan == first.plan
    assert found.predicted_ratio == first.predicted_ratio
    assert found.latency.ratio == pytest.approx(1.05 * found.predicted_ratio)


@pytest.mark.slow
def test_a_layer_that_does_not_pay_in_the_network_around_it_is_kept(tmp_path: Path) -> None:
    wholes = []

    def around(model: onnx.ModelProto, predicted: float) -> float:
        left = {each.name for each in model.graph.initializer}
        replaced = {i for i in range(DEPTH) if f"w{i}" not in left}
        if len(replaced) > 1:
            wholes.append(1 - 0.09 * len(replaced - {2}) + 0.2 * (2 in replaced))
        return 1 - 0.09 * len(replaced - {2}) + 0.2 * (2 in replaced)

    first = search(tmp_path, settings=ONCE, min_sqnr_db=12).search
    assert "node4" in {layer.name for layer in first.layers}
    clock = Clock(network(), around)
    found = search(tmp_path, clock=clock, settings=ONCE, min_sqnr_db=12).search
    assert "node4" not in {layer.name for layer in found.layers}
    assert found.layers
    assert len(wholes) >= 2
    assert found.latency.ratio == min(wholes) < wholes[0]
    assert found.quality.within(Budget(min_sqnr_db=12))
    # What layers add in the network was measured, and they add up.
    assert found.predicted_ratio == pytest.approx(found.latency.ratio, rel=SETTINGS.off)


@pytest.mark.slow
def test_what_fails_in_the_first_fits_may_pass_refitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = search(tmp_path, min_speedup=1.9)
    first, predictor = free.search.quality.sqnr_db, free.search.quality.sqnr
    assert predictor is not None
    # Two standard errors and more below what refits reach, so that other samples keep it too.
    least = first - 2.5 * predictor.error
    both = search(tmp_path, min_speedup=1.9, min_sqnr_db=least)
    # The same picks: their fits lose more than is allowed, their refits do not.
    assert not both.search.explored[0].passed
    assert both.search.explored[1].passed
    assert not both.search.failures
    assert both.search.latency.ratio <= 1 / 1.9
    beyond = search(tmp_path, min_speedup=1.9, min_sqnr_db=first + 3)
    assert "what the targets ask for loses more" in beyond.failures[0]


@pytest.mark.slow
def test_few_samples_do_not_stop_a_search_at_the_first_that_changes_sides(tmp_path: Path) -> None:
    result = search(tmp_path, max_drop=1)  # 56 samples: one is 1.8 points
    quality = result.search.quality
    assert quality.samples < 100
    assert quality.margins is not None
    assert quality.within(Budget(max_drop=1))
    for each in result.search.explored:
        margins = each.quality.margins
        assert margins is not None
        counted = max(margins.drop, margins.expected_drop) <= 1
        verdict = result.compressed.report.verification
        assert verdict is not None
        # Where one class fills the samples, agreement says nothing, and the scores must hold too.
        void = (each.quality.common or 0) >= 0.99
        scores = not void or (each.quality.varying_db or 0) >= DEFAULT_SQNR_DB
        assert each.passed == (
            scores and (counted or margins.chance(1, verdict.samples) >= SETTINGS.least_probability)
        )


@pytest.mark.slow
def test_a_search_killed_between_refits_goes_on(tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = CHILD.format(tests=str(here.parent), here=str(here), folder=str(tmp_path / "killed"))
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("killed/search/*.*")}
    resumed = search(tmp_path / "killed", min_sqnr_db=15)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was done again
    whole = search(tmp_path / "whole", min_sqnr_db=15)
    assert resumed.search.to_dict() == whole.search.to_dict()
    assert resumed.compressed.model == whole.compressed.model
