"""Statistics by layer, kept in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx_lowrank.cache import Cache
from onnx_lowrank.errors import DataError
from onnx_lowrank.metrics.moments import LayerStatistics


def read_statistics(cache: Cache, entry: str) -> LayerStatistics | None:
    """Return the statistics of an entry, None where it is missing or damaged."""
    return cache.arrays(entry, LayerStatistics.from_arrays)


class StoredStatistics(Mapping[str, LayerStatistics]):
    """Statistics by layer name, read at each access.

    Attributes
    ----------
    refused : dict of str to str
        Why there are none of a layer that was asked for; reading them raises DataError.
    """

    def __init__(
        self, cache: Cache, entries: Mapping[str, str], refused: Mapping[str, str]
    ) -> None:
        self._cache = cache
        self._entries = dict(entries)
        self.refused = dict(refused)

    def entry(self, layer: str) -> str:
        """Return the key of a layer's statistics: models, data, settings and the layer's place."""
        return self._entries[layer]

    def __getitem__(self, layer: str) -> LayerStatistics:
        if layer in self.refused:
            raise DataError(self.refused[layer])
        entry = self._entries[layer]
        found = read_statistics(self._cache, entry)
        if found is None:
            raise DataError(
                f"the statistics {entry} in {self._cache.folder} are missing or damaged; "
                "calibrate again"
            )
        return found

    def __iter__(self) -> Iterator[str]:
        return (layer for layer in self._entries if layer not in self.refused)

    def __len__(self) -> int:
        return len(self._entries) - len(self.refused)
