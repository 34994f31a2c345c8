"""Outputs of a model that were computed before, on this machine and on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.runtime import TensorInfo
from onnx_lowrank.runtime.engines import Engine, LoadedModel

MOST_BYTES = 1 << 20  # of the outputs of a run: larger ones are computed again


@dataclass(frozen=True, eq=False)
class RememberedModel:
    """A model that need not run twice on the same inputs.

    Attributes
    ----------
    model : onnx.ModelProto
        The model.
    store : Cache
        Where its outputs are kept.
    """

    model: onnx.ModelProto
    store: Cache

    def load(self, engine: Engine) -> LoadedModel:
        """Load the model; it raises what the engine raises."""
        head = key_of("outputs", model_digest(self.model), engine.settings)
        return _RememberedOutputs(engine.load(self.model), head, self.store)


class _RememberedOutputs:
    """A loaded model that runs only where its outputs are not known."""

    def __init__(self, loaded: LoadedModel, head: str, store: Cache) -> None:
        self._loaded = loaded
        self._head = head
        self._store = store

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._loaded.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._loaded.outputs

    @property
    def optional_inputs(self) -> tuple[TensorInfo, ...]:
        return self._loaded.optional_inputs

    @property
    def settings(self) -> Mapping[str, str]:
        return self._loaded.settings

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        names = [info.name for info in self.outputs] if outputs is None else list(outputs)
        parts = [(name, x.dtype, x.shape, x.tobytes()) for name, x in sorted(feeds.items())]
        key = key_of(self._head, names, *(part for each in parts for part in each))

        def decode(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
            return {name: arrays[str(place)] for place, name in enumerate(names)}

        known = self._store.arrays(key, decode)
        if known is not None:
            return known
        found = self._loaded.run(feeds, names)
        values = [found[name] for name in names]
        plain = all(isinstance(x, np.ndarray) and x.dtype.kind in "fiub" for x in values)
        if plain and sum(x.nbytes for x in values) <= MOST_BYTES:
            self._store.put_arrays(key, {str(place): x for place, x in enumerate(values)})
        return found
