from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_lowrank.errors import DataError, ModelError, OnnxLowRankError, ProviderError
from onnx_lowrank.measure.benchmarking import BenchReport
from onnx_lowrank.pipelines.benchmark import benchmark
from onnx_lowrank.runtime import available_providers
from onnx_lowrank.runtime.memory import _STATUS

Build = Callable[..., onnx.ModelProto]
QUICK: dict[str, Any] = {"repeats": 8, "seconds": 0.05, "threads": (1,)}


@pytest.fixture
def report(residual_net: Build, tmp_path: Path) -> BenchReport:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    onnx.save(residual_net("N"), paths[0])
    other = residual_net("N")
    other.graph.node[0].attribute[0].ints[:] = [1, 1, 1, 1]
    weight = next(t for t in other.graph.initializer if t.name == "fc2_w")
    value = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(value, "fc2_w"))
    onnx.save(other, paths[1])
    return benchmark([*paths, paths[0]], batches=(1, 3), **QUICK)


def test_every_figure_is_there(report: BenchReport, tmp_path: Path) -> None:
    data = report.to_dict()
    json.dumps(data, allow_nan=False)
    assert data["version"] == 1
    assert data["provider"] == "cpu"
    assert set(data) == {"version", "provider", "seed", "settings", "machine", "notes"}
    assert [(s["batch"], s["threads"]) for s in data["settings"]] == [(1, 1), (3, 1)]
    for setting in data["settings"]:
        assert setting["repeats"] == 8
        assert set(setting["noise"]) >= {"noisy", "reasons"}
        names = [c["name"] for c in setting["contenders"]]
        assert names == ["a.onnx", "b.onnx", "a.onnx #2"]
        for contender in setting["contenders"]:
            latency = contender["latency"]
            assert latency["runs"] >= 8 * setting["rounds"]
            assert 0 < latency["min_ms"] <= latency["median_ms"] <= latency["p90_ms"]
            assert latency["p90_ms"] <= latency["p99_ms"]
            expected = 1e3 * setting["batch"] / latency["mean_ms"]
            assert contender["throughput_per_s"] == pytest.approx(expected)
            assert contender["load_ms"] > 0
            assert contender["file_bytes"] == (tmp_path / contender["name"][:6]).stat().st_size
            assert contender["same_outputs"] is True
            if _STATUS.exists():
                assert contender["memory"]["resident"] > 0
        first, second, third = setting["contenders"]
        assert first["ratio"] is None
        assert first["sqnr_db"] is None
        for contender in (second, third):
            ratio = contender["ratio"]
            assert 0 < ratio["low"] <= ratio["ratio"] <= ratio["high"]
            assert ratio["confidence"] >= 0.99
        # Its last weights are 1 % larger: 40 dB, less what the biases, which are not, take away.
        assert 35 < second["sqnr_db"] < 60
        assert third["sqnr_db"] == 300


def test_one_model_has_no_ratio(residual_net: Build) -> None:
    (setting,) = benchmark([residual_net()], **QUICK).settings
    (only,) = setting.contenders
    assert only.name == "net"
    assert only.ratio is None
    assert setting.batch == 1


def test_threads_are_swept(residual_net: Build) -> None:
    options = {**QUICK, "threads": (1, 2, None)}
    report = benchmark([residual_net(2)], **options)
    assert [s.threads for s in report.settings] == [1, 2, None]
    assert {s.batch for s in report.settings} == {2}
    assert [s.noise.cpu_share is None for s in report.settings] == [False, True, True]


def test_a_fixed_batch_is_changed(residual_net: Build) -> None:
    report = benchmark([residual_net(1), residual_net("N")], batches=(1, 4), **QUICK)
    assert [s.batch for s in report.settings] == [1, 4]
    for setting in report.settings:
        sqnr = setting.contenders[1].sqnr_db
        assert sqnr is not None
        # One network: the shapes that onnxruntime knows may change the order of its sums.
        assert sqnr > 100


def test_int8_takes_part(residual_net: Build) -> None:
    report = benchmark([residual_net(1)], int8=True, batches=(1, 2), **QUICK)
    for setting in report.settings:
        original, int8 = setting.contenders
        assert int8.name == "net (int8)"
        assert int8.file_size < original.file_size
        assert int8.ratio is not None
        assert int8.sqnr_db is not None
        # Eight bits round by a 1/256 of the range: some 40 dB for each of a handful of layers.
        assert 20 < int8.sqnr_db < 80
    assert report.notes == ("the int8 model has its ranges from random inputs; data are better",)


def test_openvino_that_is_missing_is_said(
    residual_net: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    report = benchmark([residual_net(1)], openvino=True, **QUICK)
    assert len(report.settings[0].contenders) == 1
    assert report.notes == (
        "OpenVINO was left out: OpenVINO is not installed; pip install 'onnx_lowrank[openvino]'",
    )


def test_openvino_takes_part(residual_net: Build) -> None:
    pytest.importorskip("openvino")
    (setting,) = benchmark([residual_net(1)], openvino=True, **QUICK).settings
    other = setting.contenders[1]
    assert other.name.startswith("net (OpenVINO 2")
    assert other.sqnr_db is not None
    assert other.sqnr_db > 100


def test_progress_tells_each_repeat(residual_net: Build) -> None:
    seen: list[tuple[str, int, int]] = []
    benchmark([residual_net(1)], progress=lambda *step: seen.append(step), **QUICK)
    repeats = [step for step in seen if "repeat" in step[0]]
    assert [(done, total) for _, done, total in repeats] == [(k, 8) for k in range(8)]
    assert repeats[0][0] == "batch as is, threads 1: timing, repeat 1"


def test_inputs_must_be_those_of_the_first(residual_net: Build) -> None:
    other = residual_net(1)
    other.graph.input[0].name = other.graph.node[0].input[0] = "picture"
    with pytest.raises(ModelError, match="compare models with the same inputs"):
        benchmark([residual_net(1), other], **QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": 7}, "repeats is 7; an interval needs 8 or more"),
        ({"seconds": 0.0}, "seconds is 0; give more than 0"),
        ({"threads": (0,)}, "threads is 0; give a number from 1"),
        ({"batches": ()}, r"batches are \[\]"),
    ],
)
def test_numbers_out_of_range(residual_net: Build, change: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxLowRankError, match=message):
        benchmark([residual_net(1)], **{**QUICK, **change})


def test_no_model() -> None:
    with pytest.raises(OnnxLowRankError, match="there is no model to measure"):
        benchmark([])


def test_a_missing_file_and_a_missing_shape(residual_net: Build, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx"):
        benchmark([tmp_path / "none.onnx"], **QUICK)
    model = residual_net("N")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(DataError, match="--input-shape"):
        benchmark([model], **QUICK)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in available_providers(), reason="onnxruntime has CUDA here"
)
def test_a_missing_provider(residual_net: Build) -> None:
    with pytest.raises(ProviderError, match="no CUDA provider"):
        benchmark([residual_net(1)], engine="cuda", **QUICK)
