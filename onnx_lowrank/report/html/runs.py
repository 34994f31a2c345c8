"""The JSON files that a report is made of, and which command wrote each."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_lowrank.documents import VERSIONS
from onnx_lowrank.errors import DataError

KINDS = (
    *("search", "compress", "bench", "profile", "sweep", "verify", "cost", "inspect"),
    *("correct", "finetune", "cascade"),
)


@dataclass(frozen=True)
class Run:
    """What one command printed with ``--json``.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    kind : str
        One of `KINDS`.
    data : dict
        Its content.
    """

    name: str
    kind: str
    data: dict[str, Any]

    @property
    def compression(self) -> dict[str, Any] | None:
        """The report on a rewritten model, or None."""
        return self.data if self.kind in ("compress", "search") else None

    @property
    def cost(self) -> dict[str, Any] | None:
        """Operations before and after, or None."""
        found = self.data["cost"] if self.compression else self.data
        return found if self.compression or self.kind == "cost" else None

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The comparison of two models in onnxruntime, or None."""
        if self.compression:
            found: dict[str, Any] | None = self.data["verification"]
            return found
        return self.data if self.kind == "verify" else None

    def slug(self, what: str) -> str:
        """Return the name of a figure of this run: letters, digits and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name}-{what}".lower()).strip("-")


def read_run(path: Path) -> Run:
    """Read one file.

    Raises
    ------
    DataError
        If it is no JSON that a command printed, or of a later version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the run {path}: {error}; give what a command printed with --json"
        ) from None
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in KINDS:
        raise DataError(
            f"{path} is not the JSON of {', '.join(KINDS[1:])}; "
            "give what one of these printed with --json"
        )
    if data.get("version") != VERSIONS[kind]:
        raise DataError(
            f"{path} has version {data.get('version')}, not {VERSIONS[kind]}; "
            "run the command again with this onnx_lowrank"
        )
    return Run(path.stem, kind, data)
