"""The C++ unit tests, plain and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "custom_ops"


def lacks(sanitizers: str, folder: Path) -> str | None:
    """Return why programs with these sanitizers cannot be built or run here, or None."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        return "no cmake or no C++ compiler"
    source, program = folder / "empty.cc", folder / "empty"
    source.write_text("int main() { return 0; }\n")
    flags = [f"-fsanitize={sanitizers}"] if sanitizers else []
    built = subprocess.run(["c++", *flags, source, "-o", program], capture_output=True, text=True)
    if built.returncode:
        return f"no sanitizer {sanitizers}: {built.stderr.strip()[-200:]}"
    ran = subprocess.run([program], capture_output=True, text=True)
    if ran.returncode:
        return f"sanitizer {sanitizers} does not run here: {ran.stderr.strip()[-200:]}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["", "address,undefined", "thread"])
def test_cpp(tmp_path: Path, sanitizers: str) -> None:
    if reason := lacks(sanitizers, tmp_path):
        pytest.skip(reason)
    build = tmp_path / "build"
    options = ["-DONNX_LOWRANK_TESTS=ON", f"-DONNX_LOWRANK_SANITIZE={sanitizers}"]
    for command in (
        ["cmake", "-S", SOURCE, "-B", build, *options],
        ["cmake", "--build", build, "--target", "kernel_tests", "-j2"],
    ):
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    # Run itself, not by ctest, which succeeds where it finds no test.
    result = subprocess.run([build / "kernel_tests"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    cases, failures = (int(result.stdout.split()[i]) for i in (0, 2))
    assert cases > 1000
    assert failures == 0
