"""The models that take part in a benchmark, and what runs each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx_lowrank.data import DataOptions
from onnx_lowrank.errors import ModelError, ProviderError
from onnx_lowrank.measure.workload import Workload, make_feeds
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import Engine, OpenVinoEngine
from onnx_lowrank.runtime.int8 import quantise
from onnx_lowrank.types import Feeds, ModelSource

CALIBRATION_SAMPLES = 8


@dataclass(frozen=True)
class Entry:
    """A model that is timed.

    Attributes
    ----------
    name : str
        What results call it.
    workload : Workload
        The model.
    engine : Engine
        Where it runs.
    """

    name: str
    workload: Workload
    engine: Engine

    def at_batch(self, batch: int | None, samples: DataOptions) -> Entry:
        """Return it with the model changed to take `batch` samples at once, see `Workload`."""
        workload = self.workload.at_batch(
            batch, input_shapes=samples.input_shapes, seed=samples.seed
        )
        return replace(self, workload=workload)


def open_entries(models: Sequence[ModelSource], engine: Engine) -> list[Entry]:
    """Read the models, each under a name of its own.

    Raises
    ------
    ModelError
        A model cannot be read, or takes other inputs than the first.
    """
    entries: list[Entry] = []
    for source in models:
        workload = Workload.open(source)
        taken = {entry.name for entry in entries}
        name, number = workload.name, 2
        while name in taken:
            name, number = f"{workload.name} #{number}", number + 1
        entries.append(Entry(name, workload, engine))
    first = {i.name: i.type for i in model_inputs(entries[0].workload.model)}
    for entry in entries[1:]:
        found = {i.name: i.type for i in model_inputs(entry.workload.model)}
        if found != first:
            raise ModelError(
                f"{entry.name} takes {_names(found)}, but {entries[0].name} takes {_names(first)}; "
                "compare models with the same inputs"
            )
    return entries


def _names(inputs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in inputs.items()) or "nothing"


def in_openvino(first: Entry) -> Entry:
    """Return the first contender in OpenVINO; raise ProviderError where that cannot be compared."""
    engine = OpenVinoEngine()
    if first.engine.device != engine.device:
        raise ProviderError(f"it is compared on the CPU, not on {first.engine.name}")
    if first.engine.name == engine.name:
        raise ProviderError("all models run there already")
    engine.require()
    return Entry(f"{first.name} (OpenVINO {engine.version})", first.workload, engine)


def in_int8(entry: Entry, folder: Path, samples: DataOptions) -> Entry:
    """Return a contender quantised statically by onnxruntime, written into a folder.

    Parameters
    ----------
    entry : Entry
        The contender.
    folder : path
        Where its file goes.
    samples : DataOptions
        What its ranges come from; random samples where it has no source.

    Raises
    ------
    ModelError, DataError
        The model cannot be quantised, or the samples cannot be made.
    """
    model = entry.workload.model
    path = folder / "int8.onnx"
    feeds: list[Feeds] = [
        # Apart from those that are timed, which would flatter its error.
        make_feeds(model, None, replace(samples, seed=samples.seed + 1 + number))
        for number in range(CALIBRATION_SAMPLES)
    ]
    quantise(model, path, feeds)
    return Entry(f"{entry.name} (int8)", Workload.open(path), entry.engine)
