"""The training loop: steps, validation, the best weights kept, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.files import UNREADABLE
from onnx_lowrank.training.batches import Rows, shuffled, steps_of, whole_batches
from onnx_lowrank.training.checkpoint import State, damaged, read_checkpoint, write_checkpoint
from onnx_lowrank.training.losses import Loss
from onnx_lowrank.training.settings import Schedule
from onnx_lowrank.types import Progress, silent

MOMENTUM = 0.9
CHECKPOINT_EVERY = 100  # steps, and at the end of each epoch


@dataclass(frozen=True)
class Score:
    """What a model is worth on held-out data.

    Attributes
    ----------
    loss : float
        The loss that is trained, mean over the samples.
    accuracy : float or None
        Share of samples whose highest score is at their label, where there are labels.
    agreement : float or None
        Share whose highest score is where the original has it.
    """

    loss: float
    accuracy: float | None
    agreement: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """What a better score has more of: accuracy, else agreement; then a lower loss."""
        share = self.agreement if self.accuracy is None else self.accuracy
        return (share or 0.0, -self.loss if math.isfinite(self.loss) else -math.inf)

    def to_dict(self) -> dict[str, float | None]:
        """Return it ready for JSON, in which a loss that is not finite is null."""
        return {**asdict(self), "loss": self.loss if math.isfinite(self.loss) else None}


@dataclass(frozen=True)
class Outcome:
    """What training came to.

    Attributes
    ----------
    values : list of ndarray
        The weights of the best validation.
    history : list of Score
        Validations: before training, then after each epoch.
    stopped : str
        Why training ended, as a sentence without its full stop.
    steps : int
        Steps made.
    """

    values: list[NDArray[np.float32]]
    history: list[Score]
    stopped: str
    steps: int


def validate(loss: Loss, data: Dataset) -> Score:
    """Return the score of the weights as they stand.

    Raises
    ------
    DataError
        There is no batch that the model can run on.
    """
    total, samples, right, agreeing = 0.0, 0, 0, 0
    outcome = None
    with torch.no_grad():
        for rows in whole_batches(data):
            outcome = loss(rows.feeds, rows.labels, agreement=True)
            total += outcome.loss.item() * rows.samples
            samples += rows.samples
            right += outcome.right or 0
            agreeing += outcome.agreeing or 0
    if outcome is None:
        raise DataError("the validation data fill no batch of the model; give more")
    return Score(
        loss=total / samples,
        accuracy=None if outcome.right is None else right / samples,
        agreement=None if outcome.agreeing is None else agreeing / samples,
    )


def train(
    weights: Sequence[torch.Tensor],
    loss: Loss,
    data: Dataset,
    held_out: Dataset,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    run: str = "",
    progress: Progress = silent,
) -> Outcome:
    """Train weights in place and return the best ones found.

    Nothing worse on the held-out data than what training started from is returned. Training stops
    at a loss that is not finite, with the best weights so far.

    Parameters
    ----------
    weights : sequence of torch.Tensor
        What is trained.
    loss : Loss
        Computes with them.
    data, held_out : Dataset
        To train on, and to choose the best weights by.
    schedule : Schedule
        How.
    checkpoint : path, optional
        Where the run is kept, to go on from if it is killed: the outcome is the same.
    run : str
        What tells this run from others.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    DataError
        The checkpoint is of another run; no step can be made of the data; or what the data raise.
    OutputError
        The checkpoint cannot be written.
    """
    sizes = {size: steps_of(data, size) for size in set(schedule.batches)}
    total = sum(sizes[schedule.batch(epoch)] for epoch in range(schedule.epochs))
    trainer = _Trainer(weights, loss, schedule, total)
    state = None if checkpoint is None else read_checkpoint(checkpoint, run)
    if state is None:
        progress("validating", 0, trainer.total)
        trainer.record(validate(loss, held_out))
    else:
        assert checkpoint is not None
        try:
            trainer.restore(state)
        except (*UNREADABLE, RuntimeError) as error:
            raise damaged(checkpoint, error) from None

    def keep() -> None:
        if checkpoint is not None:
            write_checkpoint(checkpoint, trainer.state(), run)

    while not trainer.stopped:
        rng = np.random.default_rng([schedule.seed, trainer.epoch])
        size = schedule.batch(trainer.epoch)
        for index, step in enumerate(shuffled(data, size, rng)):
            if index < trainer.step:  # made before the run was killed
                continue
            progress(trainer.describe(), trainer.steps, trainer.total)
            if not trainer.advance(step):
                break
            if trainer.step % CHECKPOINT_EVERY == 0:
                keep()
        if not trainer.stopped:
            if trainer.step == 0:
                raise DataError("the training data fill no batch of the model; give more")
            progress("validating", trainer.steps, trainer.total)
            trainer.record(validate(loss, held_out))
        keep()
    return Outcome(trainer.best, trainer.history, trainer.stopped, trainer.steps)


class _Trainer:
    """Weights, their optimiser, and where they stand."""

    def __init__(
        self, weights: Sequence[torch.Tensor], loss: Loss, schedule: Schedule, steps: int
    ) -> None:
        self.weights, self.loss, self.schedule = list(weights), loss, schedule
        self.total = max(1, steps)
        self.epoch = self.step = self.steps = 0
        self.history: list[Score] = []
        self.stopped = ""
        self.best = self._values()
        self._best_at = 0
        self._optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(self.weights, lr=schedule.rate, momentum=MOMENTUM)
            if schedule.optimiser == "sgd"
            # Decay would pull factors to zero: what they approximate is not small.
            else torch.optim.AdamW(self.weights, lr=schedule.rate, weight_decay=0.0)
        )

    def describe(self) -> str:
        last = self.history[-1]
        share = last.agreement if last.accuracy is None else last.accuracy
        told = f"loss {last.loss:.4g}" if share is None else f"{share:.2%}"
        return f"epoch {self.epoch + 1} of {self.schedule.epochs}, validation {told}"

    def advance(self, step: list[Rows]) -> bool:
        """Make a step; where it is not finite, return False and change nothing."""
        done = min(1.0, self.steps / self.total)
        for group in self._optimiser.param_groups:
            group["lr"] = self.schedule.rate * (1 + math.cos(math.pi * done)) / 2
        self._optimiser.zero_grad()
        samples = sum(rows.samples for rows in step)
        for rows in step:
            outcome = self.loss(rows.feeds, rows.labels)
            torch.autograd.backward(outcome.loss * (rows.samples / samples))
            gradients = [weight.grad for weight in self.weights if weight.grad is not None]
            finite = all(bool(torch.isfinite(each).all()) for each in [outcome.loss, *gradients])
            if not finite:
                self.stopped = f"the loss is not finite at step {self.steps + 1}"
                return False
        self._optimiser.step()
        self.step += 1
        self.steps += 1
        return True

    def record(self, score: Score) -> None:
        """Take the score of an epoch's end, or of the start."""
        if not self.history or score.rank > self.history[self._best_at].rank:
            self._best_at, self.best = len(self.history), self._values()
        self.history.append(score)
        if len(self.history) > 1:
            self.epoch, self.step = self.epoch + 1, 0
        if not math.isfinite(score.loss):
            self.stopped = f"the validation loss is not finite after epoch {self.epoch}"
        elif self.epoch == self.schedule.epochs:
            self.stopped = f"all {self.epoch} epochs are done"
        elif len(self.history) - 1 - self._best_at >= self.schedule.patience:
            self.stopped = f"no better validation in {self.schedule.patience} epochs"

    def state(self) -> State:
        optimiser = {
            f"{index}.{key}": np.asarray(value.cpu())
            for index, entries in self._optimiser.state_dict()["state"].items()
            for key, value in entries.items()
        }
        notes: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.steps,
            "best_at": self._best_at,
            "stopped": self.stopped,
            "history": [asdict(score) for score in self.history],
        }
        return State(self._values(), self.best, optimiser, notes)

    def restore(self, state: State) -> None:
        with torch.no_grad():
            pairs = zip(self.weights, state.values, state.best, strict=True)
            for weight, value, best in pairs:
                if not value.shape == best.shape == tuple(weight.shape):
                    raise ValueError(f"an array of shape {value.shape}, not {tuple(weight.shape)}")
                weight.copy_(torch.from_numpy(value))
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in state.optimiser.items():
            index, key = name.split(".")
            entries.setdefault(int(index), {})[key] = torch.from_numpy(array)
        kept = self._optimiser.state_dict()
        self._optimiser.load_state_dict({**kept, "state": entries})
        notes = state.notes
        self.epoch, self.step, self.steps = notes["epoch"], notes["step"], notes["steps"]
        self._best_at, self.stopped, self.best = notes["best_at"], notes["stopped"], state.best
        self.history = [Score(**score) for score in notes["history"]]

    def _values(self) -> list[NDArray[np.float32]]:
        return [weight.detach().cpu().numpy().copy() for weight in self.weights]
