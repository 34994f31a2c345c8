"""Builds the library once per run, and gives the layer models of the benchmark to the tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"
sys.path[:0] = [str(SOURCE / "bench"), str(Path(__file__).parent)]

import building  # noqa: E402
from building import build  # noqa: E402


@pytest.fixture(scope="session")
def library() -> str:
    """A fresh build of the working tree, or the one that ONNX_LOWRANK_LIBRARY names."""
    return building.library()


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CUDA ops emulated on the host, as a library for the CPU provider.

    Built afresh, or the one that ONNX_LOWRANK_EMULATED_LIBRARY names.
    """
    if named := os.environ.get("ONNX_LOWRANK_EMULATED_LIBRARY"):
        return named
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or C++ compiler")
    folder = tmp_path_factory.mktemp("emulated")
    build(folder, "emulated_cuda_ops", "-DONNX_LOWRANK_CUDA=OFF", "-DONNX_LOWRANK_TESTS=ON")
    return str(folder / "libemulated_cuda_ops.so")


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh build of the CUDA library, or the one that ONNX_LOWRANK_CUDA_LIBRARY names."""
    if named := os.environ.get("ONNX_LOWRANK_CUDA_LIBRARY"):
        return named
    for tool in ("cmake", "c++", "nvcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    folder = tmp_path_factory.mktemp("cuda")
    architectures = "-DCMAKE_CUDA_ARCHITECTURES=75-real;80-real;86-real;89-real;90"
    build(folder, "onnx_lowrank_cuda_ops", "-DONNX_LOWRANK_CUDA=ON", architectures)
    return str(folder / "libonnx_lowrank_cuda_ops.so")
