"""`finetune`: ONNX in, ONNX out; only the values of some initializers change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import onnx

from onnx_lowrank.bounds import check_choice
from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.errors import DataError
from onnx_lowrank.files import source_path
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.training import require_torch
from onnx_lowrank.training.settings import (
    BATCH,
    RATES,
    Device,
    LossName,
    Optimiser,
    Part,
    Schedule,
    TrainingSettings,
)
from onnx_lowrank.types import ModelSource, Progress, silent

if TYPE_CHECKING:
    from onnx_lowrank.training.run import FinetuneReport


@dataclass(frozen=True)
class FinetuneResult:
    """A trained model and its report.

    Attributes
    ----------
    model : onnx.ModelProto
        With the same nodes, names, shapes and opset as the compressed one.
    report : FinetuneReport
        What training changed.
    source : path or None
        The file of the compressed model.
    """

    model: onnx.ModelProto
    report: FinetuneReport
    source: Path | None = None

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the model atomically; `force` allows to overwrite the compressed one."""
        save_model(self.model, path, source=self.source, force=force)


def finetune(
    original: ModelSource,
    compressed: ModelSource,
    *,
    data: Any,
    val: Any,
    preprocess: Preprocess | str | None = None,
    limit: int | None = None,
    part: Part = "factors",
    loss: LossName | None = None,
    optimiser: Optimiser = "adamw",
    rate: float | None = None,
    epochs: int = 3,
    batch: int | Sequence[int] = BATCH,
    patience: int = 2,
    seed: int = 0,
    recompute: bool = False,
    checkpoint: Path | None = None,
    device: Device = "cpu",
    progress: Progress = silent,
) -> FinetuneResult:
    """Train what a compression put into a model, or the layers above it.

    Parameters
    ----------
    original, compressed : path, bytes or ModelProto
        The model, and one that `compress` made of it; not changed.
    data, val : path, str or iterable
        Any sources that `open_dataset` takes: to train on, and held-out ones to choose by.
    preprocess : Preprocess or str, optional
        How images become inputs.
    limit : int, optional
        Number of training samples.
    part : {"factors", "above", "both"}
        What is trained: weights that the original lacks, those above them, or both.
    loss : {"labels", "distill", "both"}, optional
        Cross-entropy, distance from the original model, or their sum; ``both`` where the data have
        labels and ``distill`` where they have none, if not given.
    optimiser, rate, epochs, patience, seed
        As of `Schedule`.
    batch : int or sequence of int
        Samples of a step; several sizes share the epochs evenly, in their order. They need not be
        what the models fix, if each sample's outputs are the same in any batch.
    recompute : bool
        Whether steps keep few activations and compute the others again: less memory, more time.
    checkpoint : path, optional
        Where the run is kept, to go on from if it is killed.
    device : {"cpu", "cuda"}
        Where torch computes.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Returns
    -------
    FinetuneResult
        The model has the same nodes, names, shapes and opset as the compressed one.

    Raises
    ------
    ModelError, DataError, OutputError, ProviderError
        If an input is at fault; the message names the remedy.
    """
    check_choice("--optimiser", optimiser, DataError, get_args(Optimiser))
    schedule = Schedule(
        optimiser=optimiser,
        rate=RATES[optimiser] if rate is None else rate,
        epochs=epochs,
        batches=(batch,) if isinstance(batch, int) else tuple(batch),
        patience=patience,
        seed=seed,
    )
    settings = TrainingSettings(
        part=part,
        loss=loss,
        schedule=schedule,
        recompute=recompute,
        checkpoint=checkpoint,
        device=device,
    )
    training = DataOptions(data=data, preprocess=preprocess, limit=limit, seed=seed)
    validation = DataOptions(data=val, preprocess=preprocess, seed=seed)
    require_torch()
    from onnx_lowrank.training.run import finetune_model

    teacher = open_model(original, "the original")
    student = open_model(compressed, "the compressed model")
    report = finetune_model(teacher, student, training, validation, settings, progress=progress)
    return FinetuneResult(student, report, source_path(compressed))
