"""`finetune`: ONNX in, ONNX out; only the values of some initializers change."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from onnx_lowrank.cache import key_of
from onnx_lowrank.calibrate.jobs import Survey
from onnx_lowrank.data import Dataset, Preprocess, open_dataset
from onnx_lowrank.errors import DataError, ModelError, ProviderError
from onnx_lowrank.files import source_path
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.runtime import TensorInfo, model_inputs
from onnx_lowrank.training.check import check_forward
from onnx_lowrank.training.executor import Network, write_back
from onnx_lowrank.training.free import free_batch
from onnx_lowrank.training.losses import Loss, LossName
from onnx_lowrank.training.parameters import Part, trainable
from onnx_lowrank.training.train import RATES, Optimiser, Schedule, Score, train
from onnx_lowrank.types import Progress, silent

BATCH = 64


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


@dataclass(frozen=True)
class FinetuneResult:
    """A trained model and its report."""

    model: onnx.ModelProto
    report: FinetuneReport
    source: Path | None = None

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the model atomically; `force` allows to overwrite the compressed one."""
        save_model(self.model, path, source=self.source, force=force)


def finetune(
    original: Any,
    compressed: Any,
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
    device: str = "cpu",
    progress: Progress = silent,
) -> FinetuneResult:
    """Train what a compression put into a model, or the layers above it.

    Parameters
    ----------
    original, compressed : path, bytes or ModelProto
        The model, and one that `compress` made of it; not changed.
    data, val : optional
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
    start = time.perf_counter()
    if device == "cuda" and not torch.cuda.is_available():
        raise ProviderError("torch finds no CUDA device; take --device cpu")
    _check_choices(part, loss, optimiser, device)
    teacher = open_model(original, "the original")
    student = open_model(compressed, "the compressed model")
    inputs = model_inputs(student)
    if [info.name for info in model_inputs(teacher)] != [info.name for info in inputs]:
        raise ModelError("the models have different inputs; give the original, then the compressed")
    batches = (batch,) if isinstance(batch, int) else tuple(batch)
    schedule = Schedule(
        optimiser=optimiser,
        rate=RATES[optimiser] if rate is None else rate,
        epochs=epochs,
        batches=batches,
        patience=patience,
        seed=seed,
    )

    def opened(infos: Sequence[TensorInfo]) -> Iterator[Dataset]:
        for each, most in ((data, limit), (val, None)):
            yield open_dataset(
                *(each, infos),
                preprocess=preprocess,
                limit=most,
                batch=max(batches),
                seed=seed,
            )

    source, held_out = opened(inputs)
    first, *others = itertools.islice(held_out, 2)
    kind: LossName = loss or ("distill" if first.labels is None else "both")

    names = trainable(teacher, student, part)
    network = Network(student, trainable=names, device=device, recompute=recompute)
    progress("comparing torch with onnxruntime", 0, 1)
    check_forward(network, student, first.feeds)
    samples = [each.feeds for each in (first, *others)]
    free = free_batch([network, Network(teacher, device=device)], inputs, samples)
    if free != tuple(inputs):
        source, held_out = opened(free)
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
    report = FinetuneReport(
        loss=kind,
        trained=tuple(names),
        history=tuple(outcome.history),
        best=max(outcome.history, key=lambda score: score.rank),
        stopped=outcome.stopped,
        steps=outcome.steps,
        difference=difference,
        seconds=time.perf_counter() - start,
    )
    return FinetuneResult(student, report, source_path(compressed))


def _check_choices(part: str, loss: str | None, optimiser: str, device: str) -> None:
    """Raise DataError for a choice that there is not."""
    for what, chosen, known in (
        ("--train", part, ("factors", "above", "both")),
        ("--loss", loss or "both", ("labels", "distill", "both")),
        ("--optimiser", optimiser, tuple(RATES)),
        ("--device", device, ("cpu", "cuda")),
    ):
        if chosen not in known:
            raise DataError(f"{what} has no choice '{chosen}'; take one of {', '.join(known)}")


def _run_key(
    models: Sequence[onnx.ModelProto], data: Sequence[Dataset], settings: list[str]
) -> str:
    """Return a hash of what a run depends on; the data are read for it."""
    surveys = [Survey.of(each) for each in data]
    seen = (part for each in surveys for part in (each.digest, each.labels))
    return key_of(*map(model_digest, models), *seen, *settings)
