"""The C++ and CUDA sources are as clang-format leaves them, in lines of at most 100 columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from building import SOURCE

FORMATTED = {".cc", ".h", ".inl", ".cu", ".cuh"}
LISTS = {".inc", ".txt"}  # tables, one line a thing, and CMakeLists.txt


def sources(suffixes: set[str]) -> list[Path]:
    found = sorted(path for path in SOURCE.rglob("*") if path.suffix in suffixes)
    assert found
    return found


def test_sources_are_formatted() -> None:
    tool = Path(sys.executable).with_name("clang-format")
    if not tool.exists():
        pytest.skip("clang-format is not installed: it comes with onnx_lowrank[dev]")
    result = subprocess.run(
        [tool, "--dry-run", "--Werror", *sources(FORMATTED)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.parametrize("path", sources(FORMATTED | LISTS), ids=lambda path: path.name)
def test_lines_end_at_100_columns(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [i for i, line in enumerate(lines, 1) if len(line) > 100] == []
