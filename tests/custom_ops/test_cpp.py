"""The C++ unit tests, plain and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["", "address,undefined", "thread"])
def test_cpp(tmp_path: Path, sanitizers: str) -> None:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or C++ compiler")
    options = ["-DONNX_LOWRANK_TESTS=ON", f"-DONNX_LOWRANK_SANITIZE={sanitizers}"]
    subprocess.run(
        ["cmake", "-S", SOURCE, "-B", tmp_path, *options], check=True, capture_output=True
    )
    subprocess.run(["cmake", "--build", tmp_path, "-j2"], check=True, capture_output=True)
    result = subprocess.run(
        ["ctest", "--output-on-failure"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
