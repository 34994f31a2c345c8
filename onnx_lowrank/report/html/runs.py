"""The JSON files that a report is made of, and which command wrote each."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_lowrank.documents import VERSIONS
from onnx_lowrank.documents.partial import complete
from onnx_lowrank.errors import DataError
from onnx_lowrank.json_input import JsonError, check_partial, parse_json, read_bytes
from onnx_lowrank.pipelines.sweeping.journal import Journal

KINDS = (
    *("search", "compress", "bench", "profile", "sweep", "verify", "cost", "inspect"),
    *("correct", "finetune", "cascade", "estimate"),
)

_REMEDY = "give what a command printed with --json"


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
        Its content, completed with None and empty lists where the run did not come to something.
    missing : tuple of str
        Places of what was completed.
    """

    name: str
    kind: str
    data: dict[str, Any]
    missing: tuple[str, ...] = ()

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
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", self.name).strip("-")
        if plain != self.name.strip("-"):  # others may become the same
            plain += f"-{hashlib.sha256(os.fsencode(self.name)).hexdigest()[:6]}"
        return f"{plain}-{what}".strip("-")


def read_run(path: Path) -> Run:
    """Read one file.

    Raises
    ------
    DataError
        If it is no JSON that a command printed, or of another version. One that lacks something
        is read.
    """
    if path.suffix == ".jsonl":
        return _finished_points(path)
    try:
        data = parse_json(read_bytes(path))
    except (OSError, JsonError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read the run {path}: {reason}; {_REMEDY}") from None
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(
            f"{path} is not the JSON of {', '.join(KINDS[1:])}; "
            "give what one of these printed with --json"
        )
    version, due = data.get("version"), VERSIONS[kind]
    if version != due:
        later = isinstance(version, int) and version > due
        remedy = "install a newer onnx_lowrank" if later else "run the command again with this one"
        raise DataError(f"{path} has version {version}, not {due}; {remedy}")
    try:
        check_partial(data, kind)
    except JsonError as error:
        raise DataError(f"{path} is not what {kind} prints: {error}; {_REMEDY}") from None
    return Run(path.stem, kind, *complete(data, kind))


def _finished_points(path: Path) -> Run:
    """Return the points of a sweep that was killed, from the file that it keeps them in."""
    points = [point.to_dict() for point in Journal(path).points]
    if not points:
        raise DataError(f"{path} has no finished point of a sweep; {_REMEDY}")
    data = {"kind": "sweep", "version": VERSIONS["sweep"], "points": points}
    return Run(path.stem, "sweep", *complete(data, "sweep"))
