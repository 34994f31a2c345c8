from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime.bench import (
    MAX_BLOCK_RUNS,
    MIN_ROUNDS,
    SIZING_RUNS,
    WARM_UP_RUNS,
    Contender,
    drift,
    measure,
)
from onnx_lowrank.runtime.runner import OrtRunner

Log = list[tuple[str, str]]


class Recording:
    """A runner that does a little arithmetic and notes when it is used."""

    def __init__(self, name: str, log: Log, value: Callable[[int], float]) -> None:
        self._name, self._log, self._value = name, log, value
        self._runs = 0
        log.append(("load", name))

    def run(self) -> None:
        self._runs += 1
        self._log.append(("run", self._name))

    def outputs(self) -> dict[str, NDArray[Any]]:
        self._log.append(("check", self._name))
        return {"y": np.array([self._value(self._runs)]), "k": np.array([1])}


def _contender(name: str, log: Log, value: Callable[[int], float] = lambda runs: 1.0) -> Contender:
    return Contender(name, lambda: Recording(name, log, value))


def _measure(contenders: list[Contender], *, repeats: int = 6) -> Any:
    return measure(
        contenders,
        repeats=repeats,
        seconds=1e-6,
        one_thread=False,
        rng=np.random.default_rng(0),
    )


def test_every_repeat_loads_all_anew_and_every_round_runs_all() -> None:
    log: Log = []
    timings, _ = _measure([_contender("a", log), _contender("b", log)])
    loads = [name for what, name in log if what == "load"]
    assert len(loads) == 12
    pairs = [loads[k : k + 2] for k in range(0, 12, 2)]
    assert all(sorted(pair) == ["a", "b"] for pair in pairs)
    assert ["a", "b"] in pairs
    assert ["b", "a"] in pairs

    checks = [name for what, name in log if what == "check"]
    # One check of the first outputs of each, then one after each block.
    rounds = [checks[2:][k : k + 2] for k in range(0, len(checks) - 2, 2)]
    assert len(rounds) == 6 * MIN_ROUNDS
    assert all(sorted(pair) == ["a", "b"] for pair in rounds)
    assert ["a", "b"] in rounds
    assert ["b", "a"] in rounds

    for timing in timings:
        assert timing.blocks.shape == (6, MIN_ROUNDS, MAX_BLOCK_RUNS)  # runs last next to nothing
        assert timing.load.shape == (6,)
        assert (timing.blocks >= 0).all()
        assert timing.block_medians.shape == (6, MIN_ROUNDS)
        assert timing.differing == 0


def test_the_runs_that_are_not_timed() -> None:
    log: Log = []
    _measure([_contender("a", log)])
    runs = sum(what == "run" for what, _ in log)
    assert runs == 6 * WARM_UP_RUNS + SIZING_RUNS + 6 * MIN_ROUNDS * (1 + MAX_BLOCK_RUNS)


def test_blocks_whose_outputs_differ_are_counted() -> None:
    log: Log = []
    steady = _contender("steady", log)
    # Each session's second block and those after it give another value.
    limit = WARM_UP_RUNS + SIZING_RUNS + 1 + MAX_BLOCK_RUNS
    moody = _contender("moody", log, lambda runs: 1.0 if runs <= limit else 2.0)
    timings, _ = _measure([steady, moody])
    assert [t.differing for t in timings] == [0, 6 * (MIN_ROUNDS - 1)]


def test_outputs_that_become_infinite_are_an_error() -> None:
    log: Log = []
    broken = _contender("broken", log, lambda runs: 1.0 if runs <= WARM_UP_RUNS else np.inf)
    with pytest.raises(ModelError, match="broken: output 'y' is finite in one run and not in"):
        _measure([broken])
    assert gc.isenabled()


def test_outputs_that_are_nan_throughout_are_equal() -> None:
    timings, _ = _measure([_contender("a", [], lambda runs: np.nan)])
    assert timings[0].differing == 0


def test_drift_compares_the_halves() -> None:
    medians = np.array([[1.0, 1.0, 9.0], [1.0, 1.0, 1.0], [1.2, 1.2, 1.2], [1.2, 0.1, 1.2]])
    assert drift(medians) == pytest.approx(0.2)


def test_a_real_model_against_itself(residual_net: Callable[..., onnx.ModelProto]) -> None:
    model = residual_net()
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    load = partial(OrtRunner, model, {"image": image}, threads=1)
    timings, noise = measure(
        [Contender("a", load), Contender("b", load)],
        repeats=6,
        seconds=0.1,
        one_thread=True,
        rng=np.random.default_rng(0),
    )
    a, b = timings
    np.testing.assert_array_equal(a.outputs["scores"], b.outputs["scores"])
    assert a.differing == b.differing == 0
    assert (a.blocks > 0).all()
    assert a.latency.runs == a.blocks.size
    assert noise.block_spread >= 0
    assert set(noise.to_dict()) >= {"noisy", "reasons", "load_before", "switches_per_second"}
