"""The benchmark of the CUDA ops, as far as it goes without a GPU: on the CPU, by its clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cuda_bench
import numpy as np
import onnx
import pytest
from bench import build, name, points
from cases import conv
from network import PLAN, rewritten, zfnet512
from test_cuda import LACKS_GPU

from onnx_lowrank.rewriting.lowering.functions import DOMAIN
from onnx_lowrank.runtime import open_session

SCRIPT = Path(cuda_bench.__file__)
PEAK = {"bytes_per_s": 1e10, "macs_per_s": {"float32": 1e10, "float16": 1e10}}


class Event:
    """The CPU's clock in place of an event on a stream; a run ends before its call returns."""

    def record(self, stream: int) -> None:
        self.seconds = time.perf_counter()

    def milliseconds_since(self, earlier: Event) -> float:
        return 1e3 * (self.seconds - earlier.seconds)

    def close(self) -> None:
        del self.seconds  # fails if it was never recorded, or is closed twice


class Host:
    def event(self) -> Event:
        return Event()

    def synchronize(self) -> None:
        pass


PLACE = cuda_bench.Place(Host(), 0, provider="cpu", runs=3)


def started(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_says_what_is_measured() -> None:
    outcome = started("--help")
    assert outcome.returncode == 0
    assert "zfnet512" in outcome.stdout
    assert "--types" in outcome.stdout


@pytest.mark.skipif(LACKS_GPU is None, reason="there is a GPU")
def test_without_a_gpu_it_is_refused_in_one_line(tmp_path: Path) -> None:
    outcome = started("--library", tmp_path / "none.so")
    assert (outcome.returncode, outcome.stdout) == (2, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: no CUDA provider; found ") or "used CPU" in line
    assert "install onnx_lowrank[gpu]" in line or "'onnx_lowrank[gpu]'" in line


@pytest.mark.skipif(LACKS_GPU is not None, reason=f"needs a GPU: {LACKS_GPU}")
def test_a_missing_library_is_refused_in_one_line(tmp_path: Path) -> None:
    outcome = started("--library", tmp_path / "none.so")
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: no library at ")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_models_of_every_point_are_valid(dtype: Any) -> None:
    for point in points():
        portable, dense, theoretical, shape = build(point, np.random.default_rng(0), dtype)
        kinds = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), onnx.TensorProto.INT64}
        for proto in (portable, dense):
            if proto is None:
                assert point["op"] == "LRN"
                continue
            onnx.checker.check_model(proto, full_check=True)
            assert {t.data_type for t in proto.graph.initializer} <= kinds, name(point)
            open_session(proto)
        assert theoretical >= 1
        assert len(shape) == 4


@pytest.mark.parametrize("kind", list(cuda_bench.TYPES))
@pytest.mark.parametrize(
    "point",
    [
        {"op": "MonochromaticConv", **conv(3, 12, 3, 2, 17, 1), "colours": 4, "label": "mono"},
        {"op": "Tucker2Conv", **conv(8, 16, 3, 1, 9, 1), "ranks": (2, 2, 3, 2), "label": "svd"},
        {"op": "CPConv", **conv(8, 16, 3, 1, 9, 1), "ranks": (4, 2, 3, 3), "label": "outer"},
        {"op": "LRN", "C": 7, "n": 9, "label": "lrn"},
    ],
    ids=lambda point: point["label"],
)
def test_a_row_of_a_point(point: dict[str, Any], kind: str) -> None:
    row = cuda_bench.measure(point, 2, kind, PLACE, PEAK)
    assert (row["batch"], row["type"]) == (2, kind)
    assert 0 <= row["error"] <= 1e-5 + (kind == "float16") * 2.0**-11
    assert all(milliseconds > 0 for milliseconds in row["milliseconds"].values())
    width = 4 if kind == "float32" else 2
    images = 2 * point["C"] * point["n"] ** 2 * width
    if point["op"] == "LRN":
        assert row["bytes"] == 2 * images  # read once, written once
        assert row["macs"] == 0
    else:
        assert row["bytes"] > images
        assert ("dense with TF32" in row["milliseconds"]) == (kind == "float32")
        dense_macs = 2 * point["F"] * point["C"] * 9 * ((point["n"] - 1) // point["s"] + 1) ** 2
        assert row["macs"] == pytest.approx(dense_macs / row["theoretical"])
    floor = max(row["bytes"], row["macs"]) / 1e10 * 1e3
    assert row["floor_ms"] == pytest.approx(floor)
    times = row["milliseconds"]
    assert row["over_standard"] == times["standard"] / times["node"]


def test_the_machine_is_measured_for_each_type() -> None:
    found = cuda_bench.measure_machine(PLACE, ["float32", "float16"], numbers=1 << 12, side=32)
    assert found["bytes_per_s"] > 0
    assert set(found["macs_per_s"]) == {"float32", "float16"}


def test_targets_need_rows_of_float32() -> None:
    row = {"name": "3->96 7x7 s2 224: mono 6", "batch": 128, "type": "float32"}
    good = {**row, "over_dense": 2.5, "over_standard": 1.0}
    half = {**good, "type": "float16", "over_dense": 0.1, "over_standard": 0.1}
    network = {"name": "zfnet512", "batch": 128, "type": "float32", "over_original": {}}
    assert set(cuda_bench.verdicts([]).values()) == {False}
    assert set(cuda_bench.verdicts([network, half]).values()) == {False}
    assert set(cuda_bench.verdicts([good, half, network]).values()) == {True}
    for short in ({"over_dense": 2.4}, {"over_standard": 0.9}):
        assert list(cuda_bench.verdicts([good | short]).values()).count(False) == 1


def test_the_network_is_zfnet512(light_folder: Path) -> None:
    """Node by node that of the onnx package, but for the batch, which that one fixes at 1."""

    def facts(proto: onnx.ModelProto) -> list[object]:
        shapes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
        for filler in (n for n in proto.graph.node if n.op_type == "ConstantOfShape"):
            (stored,) = (t for t in proto.graph.initializer if t.name == filler.input[0])
            shapes[filler.output[0]] = tuple(onnx.numpy_helper.to_array(stored).tolist())
        return [
            (
                node.op_type,
                {
                    a.name: onnx.helper.get_attribute_value(a)
                    for a in node.attribute
                    if a.name not in ("group", "dilations", "broadcast", "axis")
                },
                [shapes[i] for i in node.input[1:] if i in shapes],
            )
            for node in proto.graph.node
            if node.op_type not in ("ConstantOfShape", "Dropout", "Constant")
        ]

    ours = facts(zfnet512(np.random.default_rng(0)))
    theirs = facts(onnx.load(light_folder / "light_zfnet512.onnx"))
    assert ours == theirs


@pytest.mark.slow
def test_a_row_of_the_network() -> None:
    row = cuda_bench.measure_network(1, cuda_bench.Place(Host(), 0, provider="cpu", runs=1))
    assert row["error"] <= cuda_bench.NETWORK_ERROR
    assert row["over_original"]["original"] == 1
    assert {key.removesuffix(" with TF32") for key in row["milliseconds"]} == {
        *("original", "standard", "portable", "portable, default ops")
    }


def test_default_ops_are_for_sessions_opened_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda_bench.OPS, "all")
    with cuda_bench.default_ops():
        assert cuda_bench.OPS not in os.environ
    assert os.environ[cuda_bench.OPS] == "all"


def test_the_whole_plan_is_lowered() -> None:
    portable = rewritten(zfnet512(np.random.default_rng(0)), portable=True)
    onnx.checker.check_model(portable)
    ops = [node.op_type for node in portable.graph.node if node.domain == DOMAIN]
    assert sorted(ops) == ["CPConv"] * 3 + ["LRN"] * 2 + ["MonochromaticConv"]
    gemms = [node for node in portable.graph.node if node.op_type == "MatMul"]
    assert len(gemms) == 4  # two products for fc1, two for fc2
    assert len(PLAN) == 6
