"""The CUDA library: that it compiles for every architecture, and on a GPU what it computes."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from building import SOURCE
from cases import activation, window
from cuda_cases import KERNELS, LRNS, TYPES, WINDOWS, Run, check_layers, check_lrn
from ops import convolutions
from test_kernels import layer

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


@pytest.mark.slow
def test_compiles_and_exports_one_function(cuda_library: str) -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", cuda_library], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["RegisterCustomOps"]


def images(library: str) -> Counter[tuple[str, int]]:
    """Count the images in a library's fat binaries by kind and compute capability.

    The form is that of CUDA 4 to 13, undocumented: a header (magic, version, its size, that of what
    follows) before images, each with kind, its header's size, its own size and, at 28, its target.
    """
    data = Path(library).read_bytes()
    found: Counter[tuple[str, int]] = Counter()
    for magic in re.finditer(re.escape(struct.pack("<I", 0xBA55ED50)), data):
        version, header, size = struct.unpack_from("<HHQ", data, magic.end())
        if version != 1:
            continue  # the same bytes by chance
        place = magic.start() + header
        end = place + size
        while place < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, place)
            (target,) = struct.unpack_from("<I", data, place + 28)
            found[{1: "PTX", 2: "ELF"}[kind], target] += 1
            place += header + size
    return found


@pytest.mark.slow
def test_every_source_is_compiled_for_every_architecture(cuda_library: str) -> None:
    # What CMakeLists.txt asks for by default, and all that conftest.py asks for.
    named = "ONNX_LOWRANK_CUDA_LIBRARY" in os.environ
    targets = (75, 80, 90) if named else (75, 80, 86, 89, 90)
    sources = len(list((SOURCE / "src" / "cuda").glob("*.cu")))
    # PTX of the newest is what a GPU yet to come compiles for itself.
    wanted = {("ELF", target): sources for target in targets} | {("PTX", 90): sources}
    assert images(cuda_library) == wanted


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
    for parts in convolutions(rng, (3, 3))[::3]:
        proto = layer(parts, {**window((3, 3), 1, 1), **activation()}, x.shape)
        data, providers = proto.SerializeToString(), ["CPUExecutionProvider"]
        if parts[0] == "MonochromaticConv":
            with pytest.raises(Exception, match="Could not find an implementation"):
                ort.InferenceSession(data, options, providers=providers)
        else:  # not registered: inlined
            ort.InferenceSession(data, options, providers=providers).run(None, {"X": x})


@pytest.fixture
def run(cuda_library: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs a model on the GPU, with every kernel registered."""
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_LIBRARY", cuda_library)
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", "all")
    return lambda proto, x: np.asarray(open_session(proto, provider="cuda").run({"X": x})["Y"])


@needs_gpu
@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
@pytest.mark.parametrize("settings", WINDOWS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_on_the_gpu(
    run: Run,
    kernel: tuple[int, ...],
    settings: tuple[int, int, int],
    dtype: Any,
    unit: float,
    tiny: float,
) -> None:
    check_layers(run, dtype, unit, tiny, kernel, settings)


@needs_gpu
@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
@pytest.mark.parametrize(("size", "beta"), LRNS)
def test_lrn_on_the_gpu(
    run: Run, size: int, beta: float, dtype: Any, unit: float, tiny: float
) -> None:
    check_lrn(run, dtype, unit, tiny, size, beta)


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

    for parts in convolutions(rng, (3, 3))[::3]:
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
