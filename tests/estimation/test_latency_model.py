from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_lowrank.estimation.latency_model import LatencyModel, Sample, fit_latencies
from onnx_lowrank.estimation.work import Work

RATES = {"Conv": 2e-11, "Conv 1x1": 3e-11}
MOVED = {"Conv": 5e-11, "Conv 1x1": 1e-10}
WEIGHTS, NODE = 2e-11, 2e-6


def seconds(work: tuple[Work, ...]) -> float:
    return sum(
        RATES[x.kind] * x.macs + MOVED[x.kind] * x.moved + WEIGHTS * x.weights + NODE for x in work
    )


def samples(layers: int = 8) -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for layer in range(layers):
        for count in (1, 2, 3):
            work = tuple(
                Work(kind, *(10 ** rng.uniform(4, 7, 3)).tolist())
                for kind in rng.choice(list(RATES), count)
            )
            found.append(Sample(f"layer {layer}", work, seconds(work)))
    return found


def test_rates_are_found_again_where_times_are_sums() -> None:
    model = fit_latencies(samples())
    assert model.spread == pytest.approx(1.0, abs=1e-6)
    for kind, rate in RATES.items():
        assert model.rates[kind] == pytest.approx(rate, rel=1e-6)
    unseen = (Work("Conv", 3e6, 1e5, 2e4), Work("Conv 1x1", 1e5, 1e6, 3e3))
    assert model.seconds(unseen) == pytest.approx(seconds(unseen), rel=1e-6)


def test_one_layer_that_takes_twice_as_long_shows_in_the_spread() -> None:
    found = samples()
    off = [replace(x, seconds=2 * x.seconds) if x.layer == "layer 3" else x for x in found]
    spread = fit_latencies(off).spread
    # An eighth of the samples is off by 2, but for what the others bend towards them.
    assert 1.15 < spread < 1.6


def test_a_kind_that_was_never_timed_is_not_known() -> None:
    model = fit_latencies(samples())
    assert model.knows([Work("Conv", 1.0, 1.0, 1.0)])
    assert not model.knows([Work("CPConv", 1.0, 1.0, 1.0)])
    assert model.knows([Work("Gather", 0.0, 1.0, 0.0)])  # bytes alone


def test_a_model_is_read_as_it_was_written() -> None:
    model = fit_latencies(samples())
    assert LatencyModel.from_dict(model.to_dict()) == model
