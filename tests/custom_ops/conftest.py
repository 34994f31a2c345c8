"""Builds the library once per run, and gives the layer models of the benchmark to the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"
sys.path.insert(0, str(SOURCE / "bench"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh build of the working tree, or the one that ONNX_LOWRANK_LIBRARY names."""
    if named := os.environ.get("ONNX_LOWRANK_LIBRARY"):
        return named
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or C++ compiler")
    build = tmp_path_factory.mktemp("ops")
    subprocess.run(["cmake", "-S", SOURCE, "-B", build], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build, "-j2"], check=True, capture_output=True)
    return str(build / "libonnx_lowrank_ops.so")
