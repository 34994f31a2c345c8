"""Builds one target of the custom ops."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"


def build(folder: Path, target: str, *options: str) -> Path:
    """Build one target of the working tree; return the folder it lies in."""
    for command in (
        ["cmake", "-S", SOURCE, "-B", folder, *options],
        ["cmake", "--build", folder, "-j2", "--target", target],
    ):
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    return folder


def library() -> str:
    """Return the library that ONNX_LOWRANK_LIBRARY names, or a fresh build, once per process."""
    if named := os.environ.get("ONNX_LOWRANK_LIBRARY"):
        return named
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or C++ compiler")
    return str(Path(_fresh().name) / "libonnx_lowrank_ops.so")


@cache
def _fresh() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="onnx_lowrank_ops")
    build(Path(folder.name), "onnx_lowrank_ops", "-DONNX_LOWRANK_CUDA=OFF")
    return folder
