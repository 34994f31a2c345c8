"""Statistics on disk, one file for each layer's input."""

from __future__ import annotations

import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from onnx_lowrank.errors import DataError, OutputError
from onnx_lowrank.metrics.moments import LayerStatistics


class Store:
    """Statistics on disk, one file each; a file that cannot be read counts as missing.

    Parameters
    ----------
    folder : path or None
        Made if it is missing; None for a temporary one that goes with this object.
    """

    def __init__(self, folder: Path | None) -> None:
        try:
            if folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="onnx_lowrank-"))
                weakref.finalize(self, rmtree, self._folder, ignore_errors=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                self._folder = folder
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {folder}: {error.strerror}; choose another"
            ) from None

    def holds(self, entry: str) -> bool:
        """Whether an entry is there, whole."""
        try:
            self.read(entry)
        except DataError:
            return False
        return True

    def read(self, entry: str) -> LayerStatistics:
        """Read an entry; raise DataError if it is missing or damaged."""
        path = self._path(entry)
        try:
            # Opened here: numpy leaves a file that is no archive open.
            with path.open("rb") as file:
                arrays = np.load(file, allow_pickle=False)
                if not isinstance(arrays, Mapping):
                    raise ValueError("no archive of arrays")
                return LayerStatistics.from_arrays(arrays)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"cannot read the statistics {path}: {error}; calibrate again"
            ) from None

    def write(self, entry: str, statistics: LayerStatistics) -> None:
        """Write an entry atomically."""
        path = self._path(entry)
        arrays: dict[str, Any] = dict(statistics.to_arrays())
        try:
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".partial-") as scratch:
                partial = Path(scratch) / path.name
                np.savez(partial, **arrays)
                partial.replace(path)
        except OSError as error:
            raise OutputError(
                f"cannot write the statistics {path}: {error.strerror}; "
                "free space or choose another folder"
            ) from None

    def _path(self, entry: str) -> Path:
        return self._folder / f"{entry}.npz"


class StoredStatistics(Mapping[str, LayerStatistics]):
    """Statistics by layer name, read at each access.

    Attributes
    ----------
    refused : dict of str to str
        Why there are none of a layer that was asked for; reading them raises DataError.
    """

    def __init__(
        self, store: Store, entries: Mapping[str, str], refused: Mapping[str, str]
    ) -> None:
        self._store = store
        self._entries = dict(entries)
        self.refused = dict(refused)

    def entry(self, layer: str) -> str:
        """Return the key of a layer's statistics: models, data, settings and the layer's place."""
        return self._entries[layer]

    def __getitem__(self, layer: str) -> LayerStatistics:
        if layer in self.refused:
            raise DataError(self.refused[layer])
        return self._store.read(self._entries[layer])

    def __iter__(self) -> Iterator[str]:
        return (layer for layer in self._entries if layer not in self.refused)

    def __len__(self) -> int:
        return len(self._entries) - len(self.refused)
