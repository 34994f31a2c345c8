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
from building import PLAIN, SOURCE, build
from tables import VECTOR_ISAS

FEATURES = {isa.name: {f"-m{feature}" for feature in isa.features} for isa in VECTOR_ISAS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the library, and the commands that compiled it."""
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    return build(tmp_path_factory, "plain", ["onnx_lowrank_ops"], *PLAIN)


@pytest.fixture(scope="module")
def commands(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "compile_commands.json").read_text())
    if not any("ONNX_LOWRANK_X86" in command["command"] for command in found):
        pytest.skip("no instruction set of the table is this machine's")
    return found


def shared_symbols(object_file: Path) -> tuple[list[str], list[str]]:
    """Return the defined symbols that the linker sees, and those that are missing."""
    defined, missing = [], []
    listed = subprocess.run(["nm", object_file], check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        *address, kind, name = line.split()
        if not address:
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


@pytest.mark.parametrize("as_built", [True, False], ids=["as built", "without optimisation"])
@pytest.mark.parametrize("isa", FEATURES)
def test_an_object_defines_its_table_alone(
    commands: list[dict[str, Any]], folder: Path, tmp_path: Path, isa: str, as_built: bool
) -> None:
    """Nothing is inlined without optimisation: all that could ever be emitted is."""
    (found,) = (each for each in commands if each["file"].endswith(f"/simd/{isa}.cc"))
    command = shlex.split(found["command"])
    out = command.index("-o") + 1
    object_file = Path(found["directory"]) / command[out]
    if not as_built:
        object_file = tmp_path / "object.o"
        command[out] = str(object_file)
        subprocess.run([*command, "-O0"], check=True, cwd=found["directory"])
    defined, missing = shared_symbols(object_file)
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
    object_file = tmp_path / "emits.o"
    subprocess.run(["c++", "-std=c++17", "-O0", "-c", source, "-o", object_file], check=True)
    defined, _ = shared_symbols(object_file)
    assert len(defined) == 2
