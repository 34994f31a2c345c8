"""The CUDA library: that it compiles for every architecture, and on a GPU what it computes."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cases import activation, model, window
from test_kernels import all_parts, layer

from onnx_lowrank.errors import ProviderError
from onnx_lowrank.runtime.cuda import Device
from onnx_lowrank.runtime.session import open_session


def lacks_gpu() -> str | None:
    try:
        with Device() as device:
            device.used_memory()
    except ProviderError as error:
        return str(error)
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "this onnxruntime has no CUDA provider"
    return None


LACKS_GPU = lacks_gpu()
needs_gpu = pytest.mark.skipif(LACKS_GPU is not None, reason=f"needs a GPU: {LACKS_GPU}")
# As in test_kernels.py: three sums of at most a few hundred float32 terms, of another order.
TOLERANCE = 6e-6


@pytest.mark.slow
def test_compiles_and_exports_one_function(cuda_library: str) -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", cuda_library], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["RegisterCustomOps"]


@pytest.mark.slow
def test_a_registered_op_without_a_kernel_for_the_provider_is_refused_not_inlined(
    cuda_library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why each provider has a library of its own: a registered op hides the function's body."""
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", "MonochromaticConv")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, 9, 9)).astype(np.float32)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(cuda_library)
    for parts in all_parts(rng, (3, 3))[::3]:
        proto = layer(parts, {**window((3, 3), 1, 1), **activation()}, x.shape)
        data, providers = proto.SerializeToString(), ["CPUExecutionProvider"]
        if parts[0] == "MonochromaticConv":
            with pytest.raises(Exception, match="Could not find an implementation"):
                ort.InferenceSession(data, options, providers=providers)
        else:  # not registered: inlined
            ort.InferenceSession(data, options, providers=providers).run(None, {"X": x})


def on_gpu(
    proto: onnx.ModelProto, library: str, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Any:
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_LIBRARY", library)
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", "all")
    return open_session(proto, provider="cuda", **options)


@needs_gpu
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 4), (7, 7), (3,), (3, 2, 3)])
@pytest.mark.parametrize(
    ("stride", "pad", "dilation"), list(itertools.product((1, 2, 3), (0, 2), (1, 2)))
)
def test_kernels_on_the_gpu(
    cuda_library: str,
    monkeypatch: pytest.MonkeyPatch,
    kernel: tuple[int, ...],
    stride: int,
    pad: int,
    dilation: int,
) -> None:
    rng = np.random.default_rng(3)
    size = {1: (23,), 2: (14, 19), 3: (5, 6, 9)}[len(kernel)]
    x = rng.standard_normal((2, 6, *size)).astype(np.float32)
    for parts, act in itertools.product(
        all_parts(rng, kernel), (activation(), activation(-0.5, 1.0, 0.1))
    ):
        proto = layer(parts, {**window(kernel, stride, pad, dilation), **act}, x.shape)
        # The body in float64 on the CPU.
        op, inputs, constants, structure = parts
        double = model(
            op,
            inputs,
            {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in constants.items()},
            {**structure, **window(kernel, stride, pad, dilation), **activation()},
            x.shape,
            dtype=np.float64,
        )
        (expected,) = onnx.reference.ReferenceEvaluator(double).run(
            None, {"X": x.astype(np.float64)}
        )
        expected = np.clip(expected, act["min"], act["max"])
        expected = np.where(expected < 0, act["alpha"] * expected, expected)
        ours = on_gpu(proto, cuda_library, monkeypatch).run({"X": x})["Y"]
        bound = TOLERANCE * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=bound)


@needs_gpu
@pytest.mark.parametrize("chosen", ["all", "LRN"])
def test_the_gpu_takes_the_kernel_where_it_is_registered_and_inlines_the_body_otherwise(
    cuda_library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, 9, 9)).astype(np.float32)
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_LIBRARY", cuda_library)
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", chosen)

    def profiled(options: Any) -> None:
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")

    for parts in all_parts(rng, (3, 3))[::3]:
        proto = layer(parts, {**window((3, 3), 1, 1), **activation()}, x.shape)
        opened = open_session(proto, provider="cuda", configure=profiled)
        opened.run({"X": x})
        events = json.loads(Path(opened.raw.end_profiling()).read_text())
        ran = {
            (e["args"]["op_name"], e["args"]["provider"])
            for e in events
            if "op_name" in e.get("args", {}) and "provider" in e["args"]
        }
        ops = {op for op, _ in ran}
        assert (parts[0] in ops) == (chosen == "all")
        assert {p for op, p in ran if not op.startswith("Memcpy")} == {"CUDAExecutionProvider"}
