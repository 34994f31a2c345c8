"""The hand-written ABI header against onnxruntime_c_api.h.

No package of Python ships that header, so its slots and values are data here, and make a header of
the same layout; ONNXRUNTIME_INCLUDE_DIR names the folder of a real one to compile against instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[2] / "custom_ops" / "src" / "abi" / "ort_abi.h"
VARIABLE = "ONNXRUNTIME_INCLUDE_DIR"
DATA = Path(__file__).with_name("ort_c_abi.txt")
# Ours, the real name; both are values of enumerations.
VALUES = {
    "kFail": "ORT_FAIL",
    "kInvalidArgument": "ORT_INVALID_ARGUMENT",
    "kFloat": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT",
    "kInt64": "ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64",
    "kFloat16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16",
    "kBFloat16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16",
    "kHostInput": "OrtMemTypeCPUInput",
    "kDeviceMemory": "OrtMemTypeDefault",
    "kCpu": "OrtMemoryInfoDeviceType_CPU",
}


def members() -> dict[str, int]:
    """Return the slot of every member of OrtApi that the library calls."""
    found = re.findall(r"^\s*X\((\w+), (\d+),", HEADER.read_text(), re.MULTILINE)
    return {name: int(slot) for name, slot in found}


def custom_op_members() -> list[str]:
    """Return the members of OrtCustomOp in our order."""
    body = HEADER.read_text().split("struct OrtCustomOp {")[1].split("\n};")[0]
    return [
        match[1] or match[2]
        for line in body.splitlines()
        if (match := re.match(r"\s*(?:uint32_t (\w+);|.*?\(\*(\w+)\)\()", line))
    ]


def assertions() -> str:
    """C++ that compiles only if every slot, value, and version is that of the real header."""
    slots = {f"OrtApi, {name}": slot for name, slot in members().items()}
    slots |= {f"OrtCustomOp, {name}": slot for slot, name in enumerate(custom_op_members())}
    slots |= {"OrtApiBase, GetApi": 0, "OrtApiBase, GetVersionString": 1}
    text = HEADER.read_text()
    values = {
        real: int(match[1])
        for ours, real in VALUES.items()
        if (match := re.search(rf"\b{ours} = (-?\d+)", text))
    }
    assert len(values) == len(VALUES)
    version = re.search(r"kApiVersion = (\d+)", text)
    assert version
    return "\n".join(
        [
            "#include <cstddef>",
            "#include <onnxruntime_c_api.h>",
            *(
                f'static_assert(offsetof({m}) == {s} * sizeof(void*), "");'
                for m, s in slots.items()
            ),
            *(f'static_assert({name} == {value}, "");' for name, value in values.items()),
            f'static_assert(ORT_API_VERSION >= {version[1]}, "");',
        ]
    )


def header_of_the_data() -> str:
    """Return structures of untyped pointers and an enumeration of the values in the data."""
    structures: dict[str, list[str]] = {}
    values, version = [], ""
    for line in DATA.read_text().splitlines():
        if line.startswith("ORT_API_VERSION"):
            version = line
        elif line.startswith("Value"):
            values.append(" = ".join(line.split()[1:]))
        elif not line.startswith("#"):
            structure, slot, member = line.split()
            members = structures.setdefault(structure, [])
            assert int(slot) == len(members)
            members.append(member)
    return "\n".join(
        [
            f"#define {version}",
            *(
                f"struct {name} {{ {' '.join(f'void* {m};' for m in members)} }};"
                for name, members in structures.items()
            ),
            f"enum {{ {', '.join(values)} }};",
        ]
    )


def compile_with_header(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    include = os.environ.get(VARIABLE)
    if include is None:
        (folder / "onnxruntime_c_api.h").write_text(header_of_the_data())
    file = folder / "slots.cc"
    file.write_text(source)
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-I{include or folder}", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_of_the_header_is_read() -> None:
    text = HEADER.read_text()
    assert len(members()) == text.count("\n  X(") > 15
    assert f"== {len(custom_op_members())} * sizeof(void*)" in text
    assert f"slot[{max(members().values()) + 1}]" in text


def test_slots_are_those_of_the_header(tmp_path: Path) -> None:
    result = compile_with_header(assertions(), tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "right", ["OrtApi, CreateStatus) == 0", "OrtCustomOp, GetName) == 2", "FLOAT16 == 10"]
)
def test_a_wrong_slot_is_noticed(tmp_path: Path, right: str) -> None:
    assert right in assertions()
    wrong = right.rsplit(" ", 1)[0] + " 3"
    result = compile_with_header(assertions().replace(right, wrong), tmp_path)
    assert "static assertion failed" in result.stderr
