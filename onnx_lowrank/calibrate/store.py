"""Statistics on disk, one file for each layer's input."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import rmtree

from onnx_lowrank import store
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
        if folder is None:
            try:
                folder = Path(tempfile.mkdtemp(prefix="onnx_lowrank-"))
            except OSError as error:
                raise OutputError(
                    f"cannot make a temporary folder: {error.strerror}; free space"
                ) from None
            weakref.finalize(self, rmtree, folder, ignore_errors=True)
        self._entries = store.Store(folder)

    def holds(self, entry: str) -> bool:
        """Whether an entry is there, whole."""
        return self._read(entry) is not None

    def read(self, entry: str) -> LayerStatistics:
        """Read an entry; raise DataError if it is missing or damaged."""
        found = self._read(entry)
        if found is None:
            raise DataError(
                f"the statistics {entry} in {self._entries.folder} are missing or damaged; "
                "calibrate again"
            )
        return found

    def write(self, entry: str, statistics: LayerStatistics) -> None:
        """Write an entry atomically."""
        self._entries.put_arrays(entry, statistics.to_arrays())

    def _read(self, entry: str) -> LayerStatistics | None:
        return self._entries.arrays(entry, LayerStatistics.from_arrays)


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
