"""A model trained: only the values of some initializers change."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx
import torch

from onnx_lowrank.cache import key_of
from onnx_lowrank.data import DataOptions, Dataset
from onnx_lowrank.errors import ModelError, ProviderError
from onnx_lowrank.fitting.statistics.jobs import Survey
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training.check import check_forward
from onnx_lowrank.training.executor import Network, write_back
from onnx_lowrank.training.free import free_batch
from onnx_lowrank.training.losses import Loss
from onnx_lowrank.training.parameters import trainable
from onnx_lowrank.training.settings import LossName, TrainingSettings
from onnx_lowrank.training.train import Score, train
from onnx_lowrank.types import Progress, silent


@dataclass(frozen=True)
class FinetuneReport:
    """What training changed.

    Attributes
    ----------
    loss : str
        What was minimised.
    trained : tuple of str
        The initializers that were trained.
    history : tuple of Score
        Validations: before training, then after each epoch.
    best : Score
        That of the model returned.
    stopped : str
        Why training ended.
    steps : int
        Steps made.
    difference : float
        Of the new model's outputs in onnxruntime from torch's, relative to their largest value.
    seconds : float
        Wall-clock time.
    """

    loss: str
    trained: tuple[str, ...]
    history: tuple[Score, ...]
    best: Score
    stopped: str
    steps: int
    difference: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON, in which a loss that is not finite is null."""
        return {
            **asdict(self),
            "history": [score.to_dict() for score in self.history],
            "best": self.best.to_dict(),
        }


def finetune_model(
    teacher: onnx.ModelProto,
    student: onnx.ModelProto,
    training: DataOptions,
    validation: DataOptions,
    settings: TrainingSettings,
    *,
    progress: Progress = silent,
) -> FinetuneReport:
    """Train what a compression put into a model, or the layers above it, in place.

    Parameters
    ----------
    teacher, student : onnx.ModelProto
        The model, and one that `compress` made of it, whose initializers get new values.
    training, validation : DataOptions
        What to train on, and held-out samples to choose the best weights by. Their batches are the
        largest step's.
    settings : TrainingSettings
        What is trained, and how.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    ModelError, DataError, OutputError, ProviderError
        If an input is at fault; the message names the remedy.
    """
    start = time.perf_counter()
    device, schedule, checkpoint = settings.device, settings.schedule, settings.checkpoint
    if device == "cuda" and not torch.cuda.is_available():
        raise ProviderError("torch finds no CUDA device; take --device cpu")
    inputs = model_inputs(student)
    if [info.name for info in model_inputs(teacher)] != [info.name for info in inputs]:
        raise ModelError("the models have different inputs; give the original, then the compressed")
    largest = max(schedule.batches)
    sources = [replace(each, batch=largest) for each in (training, validation)]
    source, held_out = (each.open(inputs) for each in sources)
    first, *others = itertools.islice(held_out, 2)
    kind: LossName = settings.loss or ("distill" if first.labels is None else "both")

    names = trainable(teacher, student, settings.part)
    network = Network(student, trainable=names, device=device, recompute=settings.recompute)
    progress("comparing torch with onnxruntime", 0, 1)
    check_forward(network, student, first.feeds)
    samples = [each.feeds for each in (first, *others)]
    free = free_batch([network, Network(teacher, device=device)], inputs, samples)
    if free != tuple(inputs):
        source, held_out = (each.open(free) for each in sources)
    outcome = train(
        [network.weights[name] for name in names],
        Loss(teacher, student, kind, network, first.feeds),
        source,
        held_out,
        schedule,
        checkpoint=checkpoint,
        run=""
        if checkpoint is None
        else _run_key((teacher, student), (source, held_out), [*names, kind, repr(schedule)]),
        progress=progress,
    )
    write_back(student, dict(zip(names, outcome.values, strict=True)))
    check_model(student)
    difference = check_forward(Network(student, device=device), student, first.feeds)
    return FinetuneReport(
        loss=kind,
        trained=tuple(names),
        history=tuple(outcome.history),
        best=max(outcome.history, key=lambda score: score.rank),
        stopped=outcome.stopped,
        steps=outcome.steps,
        difference=difference,
        seconds=time.perf_counter() - start,
    )


def _run_key(
    models: Sequence[onnx.ModelProto], data: Sequence[Dataset], settings: list[str]
) -> str:
    """Return a hash of what a run depends on; the data are read for it."""
    surveys = [Survey.of(each) for each in data]
    seen = (part for each in surveys for part in (each.digest, each.labels))
    return key_of(*map(model_digest, models), *seen, *settings)
