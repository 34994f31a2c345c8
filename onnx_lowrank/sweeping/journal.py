"""Finished points on disk, one line each, so that a killed sweep can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

from onnx_lowrank.errors import DataError, OutputError
from onnx_lowrank.sweeping.result import SCHEMA_VERSION, PointResult


class Journal:
    """An append-only file of JSON lines: a key and a finished point each.

    A line that is cut off or otherwise damaged counts as missing, and nothing is written onto it.

    Parameters
    ----------
    path : Path
        The file; made at the first point.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, PointResult] = {}
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise OutputError(
                f"cannot read {path}: {error.strerror}; choose another folder"
            ) from None
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                if entry["version"] == SCHEMA_VERSION:
                    self._found[entry["key"]] = PointResult.from_dict(entry["point"])
            except (ValueError, KeyError, TypeError, DataError):
                continue
        self._torn = bool(content) and not content.endswith(b"\n")

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> PointResult:
        return self._found[key]

    def add(self, key: str, point: PointResult) -> None:
        """Append a finished point, and see to it that it is on the disk.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        entry = {"version": SCHEMA_VERSION, "key": key, "point": point.to_dict()}
        text = json.dumps(entry, allow_nan=False) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write((("\n" if self._torn else "") + text).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; free space and run the sweep again"
            ) from None
        self._torn = False
        self._found[key] = point
