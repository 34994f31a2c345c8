"""Object files of an instruction set define their table and nothing that a linker could share.

An inline function or template that such a file emitted could be the copy that the linker keeps for
the whole library, and run on a CPU that lacks the instruction set.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from building import SOURCE
from tables import VECTOR_ISAS

FEATURES = {isa.name: {f"-m{feature}" for feature in isa.features} for isa in VECTOR_ISAS}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every command that CMake would compile the library with."""
    for tool in ("cmake", "c++", "nm"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    folder = tmp_path_factory.mktemp("commands")
    options = ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DONNX_LOWRANK_CUDA=OFF"]
    options.append("-DONNX_LOWRANK_TESTS=ON")
    made = subprocess.run(
        ["cmake", "-S", SOURCE, "-B", folder, *options], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    found: list[dict[str, Any]] = json.loads((folder / "compile_commands.json").read_text())
    if not any("ONNX_LOWRANK_X86" in command["command"] for command in found):
        pytest.skip("no instruction set of the table is this machine's")
    return found


def shared_symbols(compile_command: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """Compile; return the defined symbols that the linker sees, and those that are missing."""
    result = folder / "object.o"
    subprocess.run([*compile_command, "-o", result], check=True, cwd=folder)
    defined, missing = [], []
    listed = subprocess.run(["nm", result], check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        *_, kind, name = line.split()
        if kind in "UvwVW" and len(line.split()) == 2:
            missing.append(name)
        elif kind.isupper() or kind in "uvw":  # the others are local to the file
            defined.append(name)
    return defined, missing


def test_no_other_file_is_compiled_for_an_instruction_set(commands: list[dict[str, Any]]) -> None:
    flags = {
        Path(each["file"]): {f for f in shlex.split(each["command"]) if f.startswith("-m")}
        for each in commands
    }
    assert {file.stem: found for file, found in flags.items() if found} == FEATURES
    assert {file.parent for file, found in flags.items() if found} == {SOURCE / "src" / "simd"}


@pytest.mark.parametrize("optimisation", ["-O0", ""])
@pytest.mark.parametrize("isa", FEATURES)
def test_an_object_defines_its_table_alone(
    commands: list[dict[str, Any]], tmp_path: Path, isa: str, optimisation: str
) -> None:
    """Nothing is inlined at -O0: what could ever be emitted is."""
    (command,) = (c["command"] for c in commands if c["file"].endswith(f"/simd/{isa}.cc"))
    arguments = shlex.split(command)
    out = arguments.index("-o")
    compiled = arguments[:out] + arguments[out + 2 :]
    defined, missing = shared_symbols([*compiled, *([optimisation] * bool(optimisation))], tmp_path)
    assert defined == [f"_ZN12onnx_lowrank4simd{len(isa)}{isa}E"]
    # Functions of C, if any: those that C++ would name could be inline elsewhere.
    assert not [name for name in missing if name.startswith("_Z")]


@pytest.mark.parametrize(
    "line",
    [
        "#include <algorithm>\nint f(int a) { return std::max(a, 1); }",
        "inline int one(int a) { return a + 1; }\nint f(int a) { return one(a); }",
    ],
)
def test_a_shared_function_is_noticed(tmp_path: Path, line: str) -> None:
    if shutil.which("c++") is None or shutil.which("nm") is None:
        pytest.skip("no c++ or nm")
    source = tmp_path / "emits.cc"
    source.write_text(line + "\n")
    defined, _ = shared_symbols(["c++", "-std=c++17", "-O0", "-c", str(source)], tmp_path)
    assert len(defined) == 2
