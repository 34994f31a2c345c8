"""How a model is trained: what a user chooses, checked before any work; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from onnx_lowrank.bounds import (
    MOST_BATCH,
    MOST_REPEATS,
    MOST_SEED,
    check_choice,
    check_count,
    check_number,
)
from onnx_lowrank.errors import DataError

Part = Literal["factors", "above", "both"]
LossName = Literal["labels", "distill", "both"]
Optimiser = Literal["adamw", "sgd"]
Device = Literal["cpu", "cuda"]

RATES: dict[Optimiser, float] = {"adamw": 3e-4, "sgd": 1e-3}
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How weights are trained.

    Attributes
    ----------
    optimiser : {"adamw", "sgd"}
        SGD has momentum.
    rate : float
        Learning rate at the start; it falls to 0 along a cosine over all epochs.
    epochs : int
        Passes over the data.
    batches : tuple of int
        Samples of a step. Several sizes share the epochs evenly, in their order: with 4 epochs,
        (32, 128) is 32 in the first two and 128 in the last two.
    patience : int
        Epochs without a better validation after which training stops.
    seed : int
        Orders the samples.

    Raises
    ------
    DataError
        There is no such optimiser, a number is not finite or out of its range, or there are more
        sizes than epochs.
    """

    optimiser: Optimiser = "adamw"
    rate: float = RATES["adamw"]
    epochs: int = 3
    batches: tuple[int, ...] = (64,)
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("--optimiser", self.optimiser, DataError, get_args(Optimiser))
        check_number("rate", self.rate, "give a learning rate above 0", DataError, above=0)
        check_count("epochs", self.epochs, DataError, most=MOST_REPEATS)
        check_count("patience", self.patience, DataError)
        check_number("seed", self.seed, "give 0 or more", DataError, least=0, most=MOST_SEED)
        if not self.batches:
            raise DataError("there is no batch of no samples; give sizes of 1 or more")
        for size in self.batches:
            check_count("the batch size", size, DataError, most=MOST_BATCH)
        if len(self.batches) > self.epochs:
            raise DataError(
                f"{len(self.batches)} batch sizes cannot share {self.epochs} epochs; give at most "
                "one size an epoch"
            )

    def batch(self, epoch: int) -> int:
        """Return the samples of a step of an epoch, counted from 0."""
        return self.batches[epoch * len(self.batches) // self.epochs]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What is trained, what it minimises, and where.

    Attributes
    ----------
    part : {"factors", "above", "both"}
        What is trained: weights that the original lacks, those above them, or both.
    loss : {"labels", "distill", "both"}, optional
        Cross-entropy, distance from the original model, or their sum; ``both`` where the data have
        labels and ``distill`` where they have none, if not given.
    schedule : Schedule
        How weights are trained.
    recompute : bool
        Whether steps keep few activations and compute the others again: less memory, more time.
    checkpoint : path, optional
        Where the run is kept, to go on from if it is killed.
    device : {"cpu", "cuda"}
        Where torch computes.

    Raises
    ------
    DataError
        There is no such part, loss or device.
    """

    part: Part = "factors"
    loss: LossName | None = None
    schedule: Schedule = Schedule()
    recompute: bool = False
    checkpoint: Path | None = None
    device: Device = "cpu"

    def __post_init__(self) -> None:
        check_choice("--train", self.part, DataError, get_args(Part))
        if self.loss is not None:
            check_choice("--loss", self.loss, DataError, get_args(LossName))
        check_choice("--device", self.device, DataError, get_args(Device))
