"""The driver's streams, events and memory; settings of the CUDA provider."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_lowrank.errors import ProviderError
from onnx_lowrank.runtime import cuda, open_session
from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.runtime.session import _provider_options

Build = Callable[..., onnx.ModelProto]
X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def _lacks_gpu() -> str | None:
    try:
        with cuda.Device() as device:
            device.used_memory()
    except ProviderError as error:
        return str(error)
    if (
        "CUDAExecutionProvider"
        not in importlib.import_module("onnxruntime").get_available_providers()
    ):
        return "this onnxruntime has no CUDA provider"
    return None


LACKS_GPU = _lacks_gpu()
needs_gpu = pytest.mark.skipif(LACKS_GPU is not None, reason=f"needs a GPU: {LACKS_GPU}")


def test_without_a_driver_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    with pytest.raises(ProviderError, match=r"no NVIDIA driver \(libcuda-that-is-nowhere\.so\.1\)"):
        cuda.Device()


def test_every_setting_is_asked_for_explicitly() -> None:
    assert _provider_options("cpu", False, None) == {}
    asked = _provider_options("cuda", False, 4096)
    assert asked == {
        "device_id": "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "user_compute_stream": "4096",
    }
    assert _provider_options("cuda", True, None)["use_tf32"] == "1"


def test_a_cpu_session_has_no_cuda_settings(residual_net: Build) -> None:
    assert open_session(residual_net()).settings == {}


def test_queued_runs_are_complete_on_the_cpu(residual_net: Build) -> None:
    runner = OrtRunner(residual_net(), {"image": X}, threads=1)
    runner.queue()
    expected = open_session(residual_net(), threads=1).run({"image": X})["scores"]
    np.testing.assert_array_equal(runner.outputs()["scores"], expected)


def test_a_setting_that_was_not_taken_is_an_error(
    monkeypatch: pytest.MonkeyPatch, residual_net: Build
) -> None:
    # A session on the CPU stands in for one on CUDA whose runtime reports another setting.
    from onnx_lowrank.runtime import session

    ort = importlib.import_module("onnxruntime")
    real = ort.InferenceSession
    cpu, gpu = "CPUExecutionProvider", "CUDAExecutionProvider"

    def reporting(model: bytes, settings: object, providers: list[object]) -> object:
        opened = real(model, settings, providers=[cpu])
        return types.SimpleNamespace(
            get_inputs=opened.get_inputs,
            get_outputs=opened.get_outputs,
            get_overridable_initializers=opened.get_overridable_initializers,
            get_providers=lambda: [gpu, cpu],
            get_provider_options=lambda: {gpu: {**providers[0][1], "use_tf32": "1"}},  # type: ignore[index]
        )

    monkeypatch.setattr(ort, "InferenceSession", reporting)
    monkeypatch.setattr(session, "check_provider", lambda provider: None)
    monkeypatch.setattr(session, "custom_ops_library", lambda provider: (None, ""))
    with pytest.raises(ProviderError, match="asked for use_tf32 0 and uses 1; install another"):
        open_session(residual_net(), provider="cuda")
    assert open_session(residual_net(), provider="cuda", tf32=True).settings == {
        "device_id": "0",
        "use_tf32": "1",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
    }


@needs_gpu
def test_events_order_a_stream() -> None:
    with cuda.Device() as device:
        stream, first, second = device.stream(), device.event(), device.event()
        first.record(stream)
        second.record(stream)
        assert second.milliseconds_since(first) >= 0
        first.close()
        second.close()


@needs_gpu
def test_device_memory_grows_with_a_model(residual_net: Build) -> None:
    with cuda.Device() as device:
        before = device.used_memory()
        runner = OrtRunner(residual_net(), {"image": X}, provider="cuda")
        runner.run()
        assert device.used_memory() > before


@needs_gpu
def test_a_session_runs_on_the_stream_given(residual_net: Build) -> None:
    with cuda.Device() as device:
        stream = device.stream()
        runner = OrtRunner(residual_net(), {"image": X}, provider="cuda", stream=stream)
        runner.queue()
        device.synchronize()
        expected = open_session(residual_net()).run({"image": X})["scores"]
        # Sums of up to 512 float32 products, in another order.
        tolerance = 512 * np.finfo(np.float32).eps * np.abs(expected).max()
        np.testing.assert_allclose(runner.outputs()["scores"], expected, rtol=0, atol=tolerance)
