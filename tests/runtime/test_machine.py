from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_lowrank.runtime.machine import Noise, NoiseMeter, _stolen_ticks, describe_machine

QUIET = Noise(
    cores=4,
    load_before=0.1,
    switches_per_second=1.0,
    stolen=0.0,
    cpu_share=0.999,
    block_spread=0.01,
    drift=0.01,
)


def test_a_quiet_machine() -> None:
    assert QUIET.reasons == ()
    assert QUIET.to_dict()["noisy"] is False


def test_what_the_system_does_not_tell_is_no_reason() -> None:
    unknown = replace(
        QUIET, load_before=None, switches_per_second=None, stolen=None, cpu_share=None
    )
    assert unknown.reasons == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"load_before": 3.5}, "the load average was 3.5 before it began"),
        ({"block_spread": 0.1}, "repeated measurements differ by 10.0%"),
        ({"drift": 0.2}, "the second half differs from the first by 20.0%"),
        ({"switches_per_second": 100.0}, "it was interrupted 100 times a second"),
        ({"stolen": 0.05}, "the host took 5.0% of the processor time"),
        ({"cpu_share": 0.5}, "the process had a processor for 50.0% of the time only"),
    ],
)
def test_each_sign_of_noise_is_named(change: dict[str, float], reason: str) -> None:
    noise = replace(QUIET, **change)
    assert noise.reasons == (reason,)
    assert noise.to_dict()["noisy"] is True
    json.dumps(noise.to_dict(), allow_nan=False)


def test_the_meter_counts_only_between_start_and_stop() -> None:
    meter = NoiseMeter(one_thread=True)
    sum(range(10_000_000))  # not counted
    for _ in range(3):
        meter.start()
        meter.stop()
    idle = meter.result(block_spread=0.0, drift=0.0)
    meter.start()
    sum(range(1_000_000))
    meter.stop()
    busy = meter.result(block_spread=0.25, drift=0.5)
    assert busy.block_spread == 0.25
    assert busy.drift == 0.5
    assert busy.cpu_share is not None
    # Processor time of the work is part of the wall time, up to the clocks' resolutions.
    assert 0 < busy.cpu_share < 1.1
    assert idle.cores == busy.cores >= 1
    assert NoiseMeter(one_thread=False).result(block_spread=0.0, drift=0.0).cpu_share is None


def test_stolen_ticks(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 1 20 3000 5 0 2 30 7 0\ncpu0 1 2 3\n")
    assert _stolen_ticks(stat) == (30, 100 + 1 + 20 + 3000 + 5 + 0 + 2 + 30)
    assert _stolen_ticks(tmp_path / "none") is None
    stat.write_text("cpu 1 2 3 4\n")
    assert _stolen_ticks(stat) is None


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    json.dumps(machine, allow_nan=False)
    assert machine["cores"] >= 1
    assert "numpy" in machine["versions"]
