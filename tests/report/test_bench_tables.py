from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from onnx_lowrank.measure.benchmarking import BenchReport, ContenderResult, SettingResult
from onnx_lowrank.report.bench_tables import print_benchmark
from onnx_lowrank.report.console import number
from onnx_lowrank.runtime.machine import Noise
from onnx_lowrank.runtime.memory import Memory
from onnx_lowrank.runtime.statistics import Latency, RatioInterval

LATENCY = Latency(
    runs=300,
    mean=0.0521,
    median=0.0519,
    p90=0.0533,
    p99=0.0761,
    minimum=0.0511,
    spread=0.01,
)
FIRST = ContenderResult(
    name="zfnet512.onnx",
    latency=LATENCY,
    throughput=19.2,
    load_seconds=0.31,
    file_size=349_000_000,
    memory=Memory(resident=426_000_000, peak=718_000_000, baseline=53_000_000),
    ratio=None,
    sqnr_db=None,
    differing_blocks=0,
)
SECOND = replace(
    FIRST,
    name="a-rewritten-network-with-a-long-name.onnx",
    memory=None,
    ratio=RatioInterval(ratio=0.5, low=0.49, high=0.512, confidence=0.990),
    sqnr_db=41.27,
    differing_blocks=3,
)
QUIET = Noise(
    cores=2,
    load_before=0.1,
    switches_per_second=1.0,
    stolen=0.0,
    cpu_share=1.0,
    block_spread=0.01,
    drift=0.0,
)
REPORT = BenchReport(
    provider="cpu",
    settings=(
        SettingResult(
            batch=1, threads=1, repeats=10, rounds=8, contenders=(FIRST, SECOND), noise=QUIET
        ),
    ),
    seed=0,
    machine={
        "cpu": "AMD EPYC",
        "cores": 2,
        "platform": "Linux x86_64",
        "versions": {"onnxruntime": "1.32.0", "numpy": "2.4.6"},
    },
    notes=("OpenVINO was left out: OpenVINO is not installed; pip install openvino",),
)


def _text(report: BenchReport, *, terminal: bool = False) -> str:
    out = io.StringIO()
    print_benchmark(report, Console(file=out, width=120, force_terminal=terminal))
    return out.getvalue()


def test_what_is_shown() -> None:
    lines = _text(REPORT).splitlines()
    assert lines[0] == "batch 1, threads: 1, cpu; 10 repeats of 8 rounds"
    assert lines[1].split() == [
        "model",
        "median",
        "ms",
        "p90",
        "p99",
        "per",
        "s",
        "ratio",
        "99%",
        "interval",
    ]
    assert lines[2].split() == ["zfnet512.onnx", "51.9", "53.3", "76.1", "19.2"]
    assert lines[3].split()[1:] == ["51.9", "53.3", "76.1", "19.2", "0.500", "0.490", "..", "0.512"]
    assert lines[5].split() == ["zfnet512.onnx", "310", "349", "426", "718", "repeat"]
    assert lines[6].split()[1:] == ["310", "349", "?", "?", "41.3", "vary", "in", "3"]
    assert "noisy" not in _text(REPORT)
    assert "AMD EPYC, 2 cores; onnxruntime 1.32.0" in lines
    assert lines[-1].startswith("note: OpenVINO was left out")


def test_noise_is_said() -> None:
    noisy = replace(REPORT.settings[0], noise=replace(QUIET, drift=0.5), threads=None)
    text = _text(replace(REPORT, settings=(noisy,)))
    assert "noisy machine: the second half differs from the first by 50.0%" in text
    assert "threads: onnxruntime's choice" in text


def test_a_terminal_of_80_columns_is_enough_and_a_pipe_has_no_colour() -> None:
    assert "\x1b" not in _text(REPORT)
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    print_benchmark(REPORT, console)
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "\x1b" in _text(REPORT, terminal=True)


def test_a_pipe_folds_no_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_benchmark(REPORT)
    assert SECOND.name in capsys.readouterr().out


def test_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0.012345, 1.2345, 99.96, 123.4, 12345.6)] == [
        "0.0123",
        "1.23",
        "100",
        "123",
        "12346",
    ]
