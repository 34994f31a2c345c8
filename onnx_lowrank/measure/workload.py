"""A model at a batch size, and inputs for it: what is timed and profiled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import DataOptions
from onnx_lowrank.data.dataset import batched_inputs, rows_of
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.graph.batch import set_batch
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.measure.verification.comparison import OutputStatistics
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.types import Feeds, ModelSource

# A sample computed in another batch differs by the order of sums at most: about 120 dB.
MIN_BATCH_SQNR_DB = 60.0


@dataclass(frozen=True)
class Workload:
    """A model and what it is called.

    Attributes
    ----------
    name : str
        The file's name, or the graph's.
    model : onnx.ModelProto
        The model.
    path : Path or None
        The file it was read from; None where it came from memory or was changed since.
    file_size : int
        Bytes of the file and of the weights it keeps elsewhere.
    """

    name: str
    model: onnx.ModelProto
    path: Path | None
    file_size: int

    @classmethod
    def open(cls, source: ModelSource) -> Workload:
        """Read a model; raise ModelError where that is not possible."""
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            return cls(path.name, open_model(path, path.name), path, _file_size(path))
        model = open_model(source)
        return cls(model.graph.name or "model", model, None, model.ByteSize())

    def file(self, folder: str | os.PathLike[str], stem: str) -> Path:
        """Return the path of the model's file, written into `folder` where it has none."""
        if self.path is not None:
            return self.path
        path = Path(folder, f"{stem}.onnx")
        save_model(self.model, path)
        return path

    def at_batch(
        self,
        batch: int | None,
        *,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        seed: int = 0,
    ) -> Workload:
        """Return the model, or a copy changed to take `batch` samples at once.

        The copy is run, and must compute for each sample what the model computes.

        Raises
        ------
        ModelError
            It does not.
        DataError
            Inputs of that batch are larger than this machine can work on.
        """
        if batch is None:
            return self
        inputs = model_inputs(self.model)
        carries = batched_inputs(inputs)
        for info in inputs:
            if carries[info.name]:
                info.check_size(batch)
        batched = [name for name in carries if carries[name]]
        changed = set_batch(self.model, batch, inputs=batched)
        if changed is self.model:
            return self
        old, new = (
            (model, make_feeds(model, None, DataOptions(input_shapes=input_shapes, seed=seed)))
            for model in (self.model, changed)
        )
        if not _agree(old, new):
            raise ModelError(
                f"{self.name} fixes its batch size and does not compute the same at batch {batch}; "
                "leave the batch size as it is, or export the model with a symbolic one"
            )
        return Workload(self.name, changed, None, self.file_size)


def make_feeds(
    model: onnx.ModelProto, batch: int | None, options: DataOptions
) -> dict[str, NDArray[Any]]:
    """Return inputs for one run of a model.

    Parameters
    ----------
    model : onnx.ModelProto
        The model.
    batch : int or None
        Samples at once; None is the number that the model fixes, or 1. Another number than the one
        that the model fixes is an error.
    options : DataOptions
        Where the first `batch` samples come from; random ones where it has no source.

    Raises
    ------
    DataError
        The inputs cannot be made, an image cannot be read, or they do not fit the model.
    """
    inputs = model_inputs(model)
    batched = batched_inputs(inputs)
    shapes = {name: tuple(shape) for name, shape in (options.input_shapes or {}).items()}
    fixed = next(
        (i.shape[0] for i in inputs if batched[i.name] and i.shape and isinstance(i.shape[0], int)),
        None,
    )
    if batch is None:
        batch = fixed or next((shapes[n][0] for n in shapes if batched.get(n)), 1)
    if fixed is not None and fixed != batch:
        raise DataError(f"the model takes {fixed} samples at once, not {batch}")
    shapes = {n: (batch, *s[1:]) if batched.get(n) else s for n, s in shapes.items()}
    wanted = replace(options, input_shapes=shapes, batch=batch, limit=batch, strict=True)
    found = next(iter(wanted.open(inputs, random=True)))
    if found.samples != batch:
        raise DataError(
            f"the first {batch} samples do not fit into one batch; give samples of one size"
        )
    return found.feeds


def batch_of(model: onnx.ModelProto, feeds: Feeds) -> int:
    """Return how many samples the inputs hold."""
    return rows_of(model_inputs(model), feeds)


def sqnr_db(reference: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """Return the least signal-to-error ratio of the float outputs in common; None without any."""
    found = []
    for name in reference.keys() & other.keys():
        statistics = OutputStatistics(name)
        statistics.add(reference[name], other[name])
        if (value := statistics.sqnr_db) is not None:
            found.append(value)
    return min(found, default=None)


def _agree(
    old: tuple[onnx.ModelProto, Feeds],
    new: tuple[onnx.ModelProto, Feeds],
) -> bool:
    outputs, sizes = [], []
    for model, feeds in (old, new):
        runner = OrtRunner(model, feeds)
        try:
            runner.run()
        except ModelError:
            return False
        outputs.append(runner.outputs())
        sizes.append(batch_of(model, feeds))
    rows = min(sizes)
    for name, value in outputs[0].items():
        other = outputs[1][name]
        if value.ndim == 0 or other.ndim == 0 or [len(value), len(other)] != sizes:
            return False
        if value.dtype.kind != "f":
            if not np.array_equal(value[:rows], other[:rows]):
                return False
            continue
        ratio = sqnr_db({name: value[:rows]}, {name: other[:rows]})
        if ratio is None or ratio < MIN_BATCH_SQNR_DB:
            return False
    return True


def _file_size(path: Path) -> int:
    structure = onnx.load(path, load_external_data=False)
    names = {
        entry.value
        for tensor in structure.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path, *(path.parent / name for name in names)]
    return sum(file.stat().st_size for file in files)
