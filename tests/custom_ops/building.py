"""Builds targets of the custom ops, once for all the workers of a run of the tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"
PLAIN = ("-DONNX_LOWRANK_TESTS=ON", "-DONNX_LOWRANK_CUDA=OFF")


def build(
    factory: pytest.TempPathFactory, kind: str, targets: list[str], *options: str, tool: str = "c++"
) -> Path:
    """Build targets of the working tree; return the folder they lie in.

    All builds of a kind share a folder, and so their object files, whichever worker asks for them.

    Parameters
    ----------
    factory : pytest.TempPathFactory
        Knows the folder of the run.
    kind : str
        Names the folder; the options belong to it.
    targets : list of str
        What to build.
    *options : str
        Of CMake.
    tool : str
        A compiler that must be there: without it the test is skipped.
    """
    for each in ("cmake", tool):
        if shutil.which(each) is None:
            pytest.skip(f"no {each}")
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder is inside of the run's
        root = root.parent
    folder = root / f"build-{kind}"
    with (root / f"build-{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "-S", SOURCE, "-B", folder, *options],
            ["cmake", "--build", folder, "-j2", "--target", *targets],
        ):
            made = subprocess.run(command, capture_output=True, text=True)
            assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    return folder


def library(factory: pytest.TempPathFactory) -> str:
    """Return the library that ONNX_LOWRANK_LIBRARY names, or a build of the working tree."""
    if named := os.environ.get("ONNX_LOWRANK_LIBRARY"):
        return named
    return str(build(factory, "plain", ["onnx_lowrank_ops"], *PLAIN) / "libonnx_lowrank_ops.so")
