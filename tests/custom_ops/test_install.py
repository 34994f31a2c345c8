"""What pip builds: the kernels where there is a compiler, the package alone where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.network]  # pip fetches what builds the package


def build_wheel(folder: Path, **environment: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--wheel-dir", folder],
        check=True,
        capture_output=True,
        env={**os.environ, **environment},
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def python(code: str, folder: Path) -> str:
    """Run code on the package unpacked in `folder`, and on no other."""
    environment = {k: v for k, v in os.environ.items() if k != "ONNX_LOWRANK_LIBRARY"}
    # The finder of an editable install goes before the path, and would find the one under test.
    other = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Redirecting' not in str(f)]"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"{other}; {code}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder)},
    )
    return result.stdout.strip()


def test_the_wheel_has_kernels_that_load(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    wheel = build_wheel(tmp_path)
    assert "-py3-none-" in wheel.name
    assert "any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        libraries = [n for n in archive.namelist() if n.startswith("onnx_lowrank/_lib/")]
        assert len(libraries) == 1
        assert not any(n.startswith("custom_ops") for n in archive.namelist())
        archive.extractall(tmp_path / "site")
    code = "import onnx_lowrank as o; o.session_options(); print(o.library_path())"
    assert Path(python(code, tmp_path / "site")) == tmp_path / "site" / libraries[0]


def test_without_a_compiler_the_package_installs_and_says_so(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-compiler")
    wheel = build_wheel(tmp_path, CC=missing, CXX=missing)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import onnx_lowrank as o; assert o.library_path() is None; "
        "print([m['what'] for m in o.diagnose().missing])"
    )
    assert "the kernel library: the kernels were not built" in python(code, tmp_path / "site")
