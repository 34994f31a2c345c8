"""`correct`: every output's mean and deviation as the original's, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.files import source_path
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.runtime import model_inputs, require_provider
from onnx_lowrank.runtime.engines import onnxruntime_provider
from onnx_lowrank.training.correct import Correction
from onnx_lowrank.training.correct import correct as correct_model
from onnx_lowrank.types import ModelSource, Progress, silent

BATCH = 32  # images that run at once


@dataclass(frozen=True)
class CorrectResult:
    """A corrected model, and what was changed in it.

    Attributes
    ----------
    model : onnx.ModelProto
        The model.
    corrections : tuple of Correction
        In the order of the graph.
    source : path or None
        The file of the compressed model.
    """

    model: onnx.ModelProto
    corrections: tuple[Correction, ...]
    source: Path | None = None

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the model atomically; `force` allows to overwrite the compressed one."""
        save_model(self.model, path, source=self.source, force=force)


def correct(
    original: ModelSource,
    compressed: ModelSource,
    *,
    data: Any,
    preprocess: Preprocess | str | None = None,
    limit: int | None = None,
    engine: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> CorrectResult:
    """Give each channel of a compressed model the original's mean and deviation over data.

    See `onnx_lowrank.training.correct.correct` for what is corrected, and what is not.

    Parameters
    ----------
    original, compressed : path, bytes or ModelProto
        The model, and one that `compress` made of it; not changed.
    data, preprocess, limit, seed
        As of `onnx_lowrank.data.open_dataset`; labels are not needed.
    engine : {"cpu", "cuda"}
        Where models run.
    progress : callable
        Called with a sentence, the number of tensors done, and their total.

    Raises
    ------
    ModelError, DataError
        If an input is at fault; the message names the remedy.
    ProviderError
        The engine is not onnxruntime, is missing or does not work.
    """
    provider = onnxruntime_provider(engine, "a correction")
    require_provider(provider)
    samples = DataOptions(data=data, preprocess=preprocess, limit=limit, batch=BATCH, seed=seed)
    student = open_model(compressed, "the compressed model")
    dataset = samples.open(model_inputs(student))
    reference = open_model(original, "the original")
    done = correct_model(reference, student, dataset, provider=provider, progress=progress)
    check_model(student)
    return CorrectResult(student, tuple(done), source_path(compressed))
