"""Builds the libraries once per run, and gives the layer models of the benchmark to the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"
sys.path[:0] = [str(SOURCE / "bench"), str(Path(__file__).parent)]

import building  # noqa: E402
from building import PLAIN, build  # noqa: E402


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A build of the working tree, or the library that ONNX_LOWRANK_LIBRARY names."""
    return building.library(tmp_path_factory)


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CUDA ops emulated on the host, as a library for the CPU provider.

    Built here, or the one that ONNX_LOWRANK_EMULATED_LIBRARY names.
    """
    if named := os.environ.get("ONNX_LOWRANK_EMULATED_LIBRARY"):
        return named
    folder = build(tmp_path_factory, "plain", ["emulated_cuda_ops"], *PLAIN)
    return str(folder / "libemulated_cuda_ops.so")


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A build of the CUDA library, or the one that ONNX_LOWRANK_CUDA_LIBRARY names."""
    if named := os.environ.get("ONNX_LOWRANK_CUDA_LIBRARY"):
        return named
    architectures = "-DCMAKE_CUDA_ARCHITECTURES=75-real;80-real;86-real;89-real;90"
    options = ["-DONNX_LOWRANK_CUDA=ON", architectures]
    targets = ["onnx_lowrank_cuda_ops"]
    folder = build(tmp_path_factory, "cuda", targets, *options, tool="nvcc")
    return str(folder / "libonnx_lowrank_cuda_ops.so")
