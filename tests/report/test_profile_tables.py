from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from onnx_lowrank.measure.profiling import ModelProfile, ProfileReport, Row
from onnx_lowrank.report.profile_tables import count, print_profile
from onnx_lowrank.runtime.machine import Noise
from onnx_lowrank.runtime.peak import Peak


def _row(name: str, op: str, mean: float, share: float, macs: int | None = None) -> Row:
    seconds = np.array([mean - 0.001, mean + 0.001])
    return Row(name, op, macs is not None, seconds, share, macs, ())


ROWS = (
    _row("gpu_0/conv1_of_a_network_with_long_names", "Conv", 0.4, 0.4, 20_000_000_000),
    _row("lrn", "LRN", 0.5, 0.5),
    _row("fc1", "Gemm", 0.098, 0.098, 4_000_000),
    _row("tiny", "Relu", 0.002, 0.002),
)
NEW = (
    _row("gpu_0/conv1_of_a_network_with_long_names", "Conv", 0.2, 0.25, 8_000_000_000),
    _row("lrn", "LRN", 0.5, 0.625),
    _row("fc1", "Gemm", 0.096, 0.12, 4_000_000),
    _row("tiny", "Relu", 0.002, 0.002),
    _row("added", "Transpose", 0.002, 0.003),
)
WALL = np.array([1.0, 1.0])
REPORT = ProfileReport(
    model=ModelProfile("net.onnx", ROWS, WALL, WALL),
    compared=None,
    provider="cpu",
    threads=1,
    batch=128,
    runs=2,
    peak=Peak(200.0, "fastest of 5 products"),
    machine={"cpu": "AMD EPYC", "cores": 2, "platform": "Linux x86_64"},
    noise=Noise(
        cores=2,
        load_before=None,
        switches_per_second=None,
        stolen=None,
        cpu_share=None,
        block_spread=0.0,
        drift=0.25,
    ),
    notes=("a note",),
)


def _lines(report: ProfileReport, *, width: int | None = None) -> list[str]:
    out = io.StringIO()
    console = Console(
        file=out, width=width or 200, force_terminal=width is not None, color_system=None
    )
    print_profile(report, console)
    return out.getvalue().splitlines()


def test_a_line_for_each_layer_and_the_sums() -> None:
    lines = _lines(REPORT)
    assert lines[0] == "batch 128, threads: 1, cpu; 2 runs"
    assert lines[1].split() == [
        "layer",
        "op",
        "mean",
        "ms",
        "sd",
        "share",
        "MACs",
        "GFLOP/s",
        "of",
        "peak",
    ]
    conv1, lrn, fc1, others = (line.split() for line in lines[2:6])
    # 2 x 20 G operations in 0.4 s.
    assert conv1[1:] == ["Conv", "400", "1.41", "40.0%", "20G", "100", "50%"]
    assert lrn == ["lrn", "LRN", "500", "1.41", "50.0%"]
    assert fc1[:5] == ["fc1", "Gemm", "98", "1.41", "9.8%"]
    assert others == ["1", "others", "2", "0.2%"]
    text = "\n".join(lines)
    assert "net.onnx: 100.0% of the time is attributed" in text
    assert "all nodes take 100.0% of the 1000 ms that a run takes" in text
    assert "peak: 200 GFLOP/s, the fastest of 5 products" in text
    assert "noisy machine: the second half differs from the first by 25.0%" in lines
    assert lines[-1] == "note: a note"


def test_the_rewritten_model_beside_it() -> None:
    compared = replace(REPORT, compared=ModelProfile("new.onnx", NEW, 0.8 * WALL, WALL))
    lines = _lines(compared)
    assert lines[1].split() == [
        "layer",
        "op",
        "mean",
        "ms",
        "sd",
        "new",
        "ms",
        "sd",
        "faster",
        "MACs",
        "new",
    ]
    conv1, lrn, _, others = (line.split() for line in lines[2:6])
    assert conv1[1:] == ["Conv", "400", "1.41", "200", "1.41", "2.00x", "20G", "8G"]
    assert lrn[-1] == "1.00x"
    assert others == ["others", "2", "4"]  # what was added is among them
    assert next(line for line in lines if line.startswith("all")).split() == [
        "all",
        "1000",
        "800",
        "1.25x",
    ]
    assert "new.onnx: 100.0%" in "\n".join(lines)


def test_both_fit_80_columns() -> None:
    compared = replace(REPORT, compared=ModelProfile("new.onnx", NEW, 0.8 * WALL, WALL))
    for report in (REPORT, compared):
        lines = _lines(report, width=80)
        assert max(map(len, lines)) <= 80
        # Long names are folded, not cut.
        joined = "".join(line.split(" ")[0] for line in lines)
        assert "gpu_0/conv1_of_a_network_with_long_names" in joined


def test_counts() -> None:
    counts = [None, 12, 3456, 167_664_672, 2 * 10**10, 3 * 10**12]
    assert [count(c) for c in counts] == ["", "12", "3.46k", "168M", "20G", "3T"]
