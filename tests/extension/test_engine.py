"""An engine from the outside: where it is asked for, everything is timed and measured by it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_lowrank
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime.engines import CPU, ENGINES, Engine, LoadedModel
from onnx_lowrank.runtime.runner import Feeds, OrtRunner, Runner

SAMPLES = 60
# Slow enough for what onnxruntime takes to vanish: the time of a run is its multiply-adds.
SECONDS_OF_A_MAC = 5e-9


@dataclass(frozen=True)
class CountingEngine:
    """onnxruntime on the CPU, slowed down to a time in proportion to multiply-adds; it counts."""

    inner: Engine = CPU
    timed: Counter[str] = field(default_factory=Counter)  # runs that were timed
    run: Counter[bytes] = field(default_factory=Counter)  # models that were run for their outputs
    name: str = "counting"
    device: Any = "cpu"
    functions: bool = True
    notes: tuple[str, ...] = ("this engine counts",)
    kernels: bool = False
    version: str = "1"

    @property
    def threads(self) -> int | None:
        return self.inner.threads

    @property
    def reorders(self) -> bool:
        return False  # a run takes as long as its multiply-adds, whatever the layout

    @property
    def settings(self) -> str:
        return f"counting {self.inner.settings}"

    def with_threads(self, threads: int | None) -> CountingEngine:
        return replace(self, inner=self.inner.with_threads(threads))

    def require(self) -> None:
        self.inner.require()

    def load(self, model: Any) -> LoadedModel:
        self.run[model_digest(model)] += 1
        return self.inner.load(model)

    def runner(self, model: Any, feeds: Feeds) -> Runner:
        shapes = {name: value.shape for name, value in feeds.items()}
        layers = find_layers(model, input_shapes=shapes)
        macs = sum(layer.spec.macs or 0 for layer in layers if layer.spec is not None)
        return SlowRunner(self.inner.runner(model, feeds), SECONDS_OF_A_MAC * macs, self.timed)


@dataclass(frozen=True)
class SlowRunner:
    inner: Runner
    seconds: float
    timed: Counter[str]

    @property
    def settings(self) -> Mapping[str, str]:
        return self.inner.settings

    def run(self) -> None:
        end = time.perf_counter() + self.seconds
        self.inner.run()
        self.timed["runs"] += 1
        while time.perf_counter() < end:
            pass

    def outputs(self) -> dict[str, np.ndarray]:
        return self.inner.outputs()


@pytest.fixture
def engine() -> Iterator[CountingEngine]:
    with ENGINES.adding(CountingEngine()) as added:
        assert isinstance(added, CountingEngine)
        yield added


@pytest.fixture
def all_runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the runs that onnxruntime makes of any model that is bound to an input."""
    counted: Counter[str] = Counter()
    real: Callable[[OrtRunner], None] = OrtRunner.run

    def run(self: OrtRunner) -> None:
        counted["runs"] += 1
        real(self)

    monkeypatch.setattr(OrtRunner, "run", run)
    return counted


@pytest.mark.slow
def test_a_search_is_timed_and_measured_by_it_alone(
    engine: CountingEngine, all_runs: Counter[str], classifier: Path, tmp_path: Path
) -> None:
    original = onnx.load(classifier)
    image = np.random.default_rng(0).standard_normal((SAMPLES, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=image)
    found = onnx_lowrank.compress_to_budget(
        original,
        Budget(min_sqnr_db=10),
        data=tmp_path / "data.npz",
        keep=["conv1", "fc"],
        engine="counting",
        threads=1,
        cache_dir=tmp_path / "cache",
    )
    assert list(found.search.plan.chosen) == ["conv2"]  # fewer multiply-adds are always faster here
    assert engine.timed == all_runs
    assert engine.timed["runs"] > 100
    report = found.compressed.report
    assert report.verification is not None
    assert list(report.verification.results) == ["counting"]
    for model in (original, found.compressed.model):
        assert engine.run[model_digest(model)] >= 1
    assert "this engine counts" in report.notes
