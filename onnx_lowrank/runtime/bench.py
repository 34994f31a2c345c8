"""Times models against each other: fresh sessions, interleaved blocks, outputs checked.

A repeat loads every contender anew, in random order, and warms it up; its rounds then time one
block of runs of each contender, again in random order. Loading anew matters: where a session's
weights and buffers happen to lie in memory changes its speed by up to a percent while it lives.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime.machine import Noise, NoiseMeter
from onnx_lowrank.runtime.runner import Runner
from onnx_lowrank.runtime.statistics import Latency, Seconds
from onnx_lowrank.types import Progress, silent

BLOCK_SECONDS = 0.02
MAX_BLOCK_RUNS = 500
MIN_ROUNDS = 3
MAX_ROUNDS = 100
WARM_UP_RUNS = 2
SIZING_RUNS = 3


@dataclass(frozen=True)
class Contender:
    """A model under a name, and how to load it."""

    name: str
    load: Callable[[], Runner]


@dataclass(frozen=True)
class Timing:
    """What was measured of one contender.

    Attributes
    ----------
    name : str
        The contender's.
    blocks : ndarray, shape (repeats, rounds, runs), float64
        Seconds of every timed run.
    load : ndarray, shape (repeats,), float64
        Seconds to load the model: parse, optimise, pack weights.
    outputs : dict of str to ndarray
        Outputs of the first run.
    differing : int
        Number of blocks after which the outputs were not exactly those of the first run.
    """

    name: str
    blocks: Seconds
    load: Seconds
    outputs: dict[str, NDArray[Any]]
    differing: int

    @property
    def latency(self) -> Latency:
        """Quantiles over all runs."""
        return Latency.of(self.blocks)

    @property
    def block_medians(self) -> Seconds:
        """Median time of a run in each block, ``(repeats, rounds)``."""
        return np.asarray(np.median(self.blocks, axis=2), dtype=np.float64)


def measure(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    seconds: float,
    one_thread: bool,
    rng: np.random.Generator,
    least_rounds: int = MIN_ROUNDS,
    most_rounds: int = MAX_ROUNDS,
    progress: Progress = silent,
) -> tuple[tuple[Timing, ...], Noise]:
    """Time contenders against each other.

    Parameters
    ----------
    contenders : sequence of Contender
        What to time; names need not differ.
    repeats : int
        How often everything is loaded anew; of one, nothing is known of what that changes.
    seconds : float
        Time to spend on the runs of each contender, roughly.
    one_thread : bool
        Whether runs keep exactly one processor busy.
    rng : numpy.random.Generator
        Draws the orders.
    least_rounds : int
        Rounds of each repeat that are run however long they take: a median of three leaves out one
        that other work disturbed.
    most_rounds : int
        Rounds of each repeat beyond which none is run however short they are.
    progress : callable
        Called with a sentence, the number of repeats done, and their total.

    Raises
    ------
    ModelError
        A model cannot be loaded or run, or an output is finite in one run and not in another.
    """
    if repeats < 1:
        raise ValueError("repeats must be 1 or more")
    states = [_State(contender) for contender in contenders]
    meter = NoiseMeter(one_thread=one_thread)
    rounds = 0
    for repeat in range(repeats):
        progress(f"timing, repeat {repeat + 1}", repeat, repeats)
        for index in rng.permutation(len(states)):
            states[index].load()
        if repeat == 0:
            longest = max(state.size_block() for state in states)
            rounds = round(seconds / repeats / longest)
            rounds = min(max(rounds, least_rounds), most_rounds)
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a run is not the model's time
        try:
            for _ in range(rounds):
                for index in rng.permutation(len(states)):
                    states[index].block(meter)
        finally:
            if collecting:
                gc.enable()
        for state in states:
            state.unload()
    timings = tuple(state.timing(repeats, rounds) for state in states)
    return timings, meter.result(
        block_spread=max(Latency.of(t.block_medians).spread for t in timings),
        drift=max(drift(t.block_medians) for t in timings),
    )


def drift(medians: Seconds) -> float:
    """Return by how much the medians of the first and the second half differ, relatively.

    Parameters
    ----------
    medians : ndarray, shape (repeats, rounds), float64
        Of blocks; of one repeat, 0 is returned.
    """
    half = len(medians) // 2
    if half == 0:
        return 0.0
    first, second = np.median(medians[:half]), np.median(medians[half:])
    return float(abs(second / first - 1))


class _State:
    """One contender while it is measured."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._runner: Runner | None = None
        self._times: list[Seconds] = []
        self._load: list[float] = []
        self._outputs: dict[str, NDArray[Any]] | None = None
        self._differing = 0
        self._runs = 1

    def load(self) -> None:
        start = time.perf_counter()
        self._runner = self._contender.load()
        self._load.append(time.perf_counter() - start)
        for _ in range(WARM_UP_RUNS):
            start = time.perf_counter()
            self._runner.run()
            if time.perf_counter() - start >= BLOCK_SECONDS:
                break  # a block begins with a run that is not timed, which is enough then
        if self._outputs is None:
            self._outputs = self._runner.outputs()

    def size_block(self) -> float:
        """Choose the runs of a block; return its seconds, with the run ahead of it."""
        assert self._runner is not None
        run = math.inf
        for _ in range(SIZING_RUNS):  # the fastest: other work must not make one's blocks short
            start = time.perf_counter()
            self._runner.run()
            run = min(run, max(time.perf_counter() - start, 1e-9))
            if run >= BLOCK_SECONDS:
                break  # a block is of one run, whatever the others take
        self._runs = min(max(math.ceil(BLOCK_SECONDS / run), 1), MAX_BLOCK_RUNS)
        return run * (self._runs + 1)

    def block(self, meter: NoiseMeter) -> None:
        """Time one block, then check the outputs."""
        runner, now = self._runner, time.perf_counter
        assert runner is not None
        times = np.empty(self._runs)
        meter.start()
        runner.run()  # brings caches from the state that another contender left to this one's own
        for index in range(self._runs):
            start = now()
            runner.run()
            times[index] = now() - start
        meter.stop()
        self._times.append(times)
        self._differing += not self._same(runner.outputs())

    def _same(self, outputs: dict[str, NDArray[Any]]) -> bool:
        assert self._outputs is not None
        same = True
        for name, first in self._outputs.items():
            value = outputs[name]
            if first.dtype.kind != "f":
                same = same and np.array_equal(first, value)
                continue
            if not np.array_equal(np.isfinite(first), np.isfinite(value)):
                raise ModelError(
                    f"{self._contender.name}: output '{name}' is finite in one run and not in "
                    "another; the model cannot be measured"
                )
            same = same and np.array_equal(first, value, equal_nan=True)
        return same

    def unload(self) -> None:
        self._runner = None

    def timing(self, repeats: int, rounds: int) -> Timing:
        assert self._outputs is not None
        return Timing(
            self._contender.name,
            np.array(self._times).reshape(repeats, rounds, self._runs),
            np.array(self._load),
            self._outputs,
            self._differing,
        )
