"""Finished points on disk, one line each, so that a killed sweep can go on."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from onnx_lowrank.cache import key_of
from onnx_lowrank.errors import CacheWarning, OutputError
from onnx_lowrank.files import flush
from onnx_lowrank.json_input import JsonError, check_json, parse_json
from onnx_lowrank.pipelines.sweeping.result import SCHEMA_VERSION, PointResult


class Journal:
    """An append-only file of JSON lines: a key and a finished point each.

    A line that is cut off or otherwise damaged counts as missing, and nothing is written onto it; a
    `CacheWarning` says so, except of one that a kill has cut off.

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
        self._torn = bool(content) and not content.endswith(b"\n")
        lost = 0
        for line in content.split(b"\n"):
            try:
                entry = parse_json(line)
                digest = entry.pop("digest")
                if digest != _digest(entry) or entry["version"] != SCHEMA_VERSION:
                    raise JsonError("it is damaged")
                check_json(entry["point"], "sweep#/properties/points/items")
                self._found[str(entry["key"])] = PointResult.from_dict(entry["point"])
            except (JsonError, AttributeError, KeyError, TypeError):
                lost += line.endswith(b"}")  # not what a kill has cut off
        if lost:
            warnings.warn(
                f"lines of {path} are damaged or of another version; they are not used",
                CacheWarning,
                stacklevel=2,
            )

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> PointResult:
        return self._found[key]

    @property
    def points(self) -> tuple[PointResult, ...]:
        """All finished points, in the order of the file."""
        return tuple(self._found.values())

    def add(self, key: str, point: PointResult) -> None:
        """Append a finished point, and see to it that it is on the disk.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        entry = {"version": SCHEMA_VERSION, "key": key, "point": point.to_dict()}
        entry["digest"] = _digest(entry)
        text = json.dumps(entry, allow_nan=False) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write((("\n" if self._torn else "") + text).encode())
                flush(file)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; free space and run the sweep again"
            ) from None
        self._torn = False
        self._found[key] = point


def _digest(entry: dict[str, Any]) -> str:
    return key_of(json.dumps(entry, sort_keys=True))
