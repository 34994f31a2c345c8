"""The tables of ops and of instruction sets that the C++ sources are made from, as Python data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Op:
    """A line of ``src/ops.inc``: the stem of its files, its name, and what a node has."""

    file: str
    name: str
    on_cuda: bool
    inputs: tuple[str, ...]
    integers: frozenset[str]
    """Inputs of int64; the others are of the type of X."""


@dataclass(frozen=True)
class Isa:
    """A line of ``src/isas.inc``: its name, and the features that a CPU must have."""

    name: str
    features: tuple[str, ...]

    def runs(self) -> bool:
        """Whether this machine's CPU has the features."""
        info = Path("/proc/cpuinfo")
        return info.exists() and set(self.features) <= set(info.read_text().split())


def _lines(table: str) -> list[str]:
    macro = f"ONNX_LOWRANK_{table[:-1].upper()}"
    text = (SOURCE / f"{table}.inc").read_text()
    return re.findall(rf"^{macro}\((.*?)\)$", text, re.MULTILINE | re.DOTALL)


def _op(line: str) -> Op:
    file, name, on_cuda, inputs = (part.strip() for part in line.split(",", 3))
    parts = [part.split(":") for part in inputs.strip('"').split()]
    return Op(
        file,
        name,
        on_cuda == "true",
        tuple(part[0] for part in parts),
        frozenset(part[0] for part in parts if part[1:] == ["int64"]),
    )


OPS = {op.name: op for op in map(_op, _lines("ops"))}
VECTOR_ISAS = tuple(
    Isa(line.split(",")[0], tuple(re.findall(r'CPU\("(\w+)"\)', line))) for line in _lines("isas")
)
ISAS = ("scalar", *(isa.name for isa in VECTOR_ISAS))
"""Every name that ONNX_LOWRANK_ISA takes, from the least to the best."""


def isas_here() -> list[str]:
    """Return the names of the instruction sets that this machine runs."""
    return ["scalar", *(isa.name for isa in VECTOR_ISAS if isa.runs())]
