"""What a whole model loses on samples that the fits did not see."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime import Session, open_session

Array = NDArray[np.float64]
_SMALLEST = 1e-30  # probability below which float32 says nothing of a logit


@dataclass(frozen=True)
class Quality:
    """How far a model's outputs are from the original's.

    Attributes
    ----------
    noise : float
        Squared error over squared signal of the scores (logits, centred) of a classifier, of the
        worst output otherwise: what single layers' errors add up to.
    sqnr_db : float
        Least signal-to-error ratio of all float outputs as they are, in dB; infinite for none.
    drop : float or None
        Points of accuracy lost where there are labels, of top-1 agreement otherwise; None where
        there are no classes.
    expected_drop : float or None
        The same as expected if every score had a Gaussian error as large as the one seen: it does
        not depend on which of the few samples happened to change sides.
    samples : int
        Number of samples.
    """

    noise: float
    sqnr_db: float
    drop: float | None
    expected_drop: float | None
    samples: int

    def within(self, budget: Budget) -> bool:
        """Whether the model is within the budget's bounds on quality."""
        if budget.min_sqnr_db is not None and self.sqnr_db < budget.min_sqnr_db:
            return False
        if budget.max_drop is None:
            return True
        assert self.drop is not None
        assert self.expected_drop is not None
        return max(self.drop, self.expected_drop) <= budget.max_drop

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "noise": self.noise,
            "sqnr_db": None if np.isinf(self.sqnr_db) else self.sqnr_db,
            "drop": self.drop,
            "expected_drop": self.expected_drop,
            "samples": self.samples,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Quality:
        """Read what `to_dict` gave."""
        sqnr = float("inf") if data["sqnr_db"] is None else data["sqnr_db"]
        return cls(data["noise"], sqnr, data["drop"], data["expected_drop"], data["samples"])


class QualityMeter:
    """Compares models with the original over a data set.

    The original runs once; its outputs are kept in memory.

    Parameters
    ----------
    original : onnx.ModelProto
        The original.
    dataset : Dataset
        Samples, with labels or without.
    threads : int, optional
        Threads of each session.

    Raises
    ------
    ModelError
        The model has no float output.
    DataError
        What the data set raises.
    """

    def __init__(
        self, original: onnx.ModelProto, dataset: Dataset, *, threads: int | None = None
    ) -> None:
        self._dataset = dataset
        self._threads = threads
        session = open_session(original, threads=threads)
        self._names = [
            o.name
            for o in session.outputs
            if o.type.startswith("tensor(") and o.dtype is not None and o.dtype.kind == "f"
        ]
        if not self._names:
            raise ModelError("no output of the model is of floats; there is no loss to measure")
        self._reference = [self._run(session, batch) for batch in dataset]
        self._scores = self._find_scores()

    @property
    def has_classes(self) -> bool:
        """Whether one output holds a score for each class."""
        return self._scores is not None

    def measure(self, model: onnx.ModelProto) -> Quality:
        """Run a model on all samples and compare."""
        session = open_session(model, threads=self._threads)
        errors, signals = np.zeros(len(self._names)), np.zeros(len(self._names))
        ours: list[Array] = []
        theirs: list[Array] = []
        labels: list[NDArray[np.int64]] = []
        samples = 0
        for batch, reference in zip(self._dataset, self._reference, strict=True):
            outputs = self._run(session, batch)
            for k, (a, b) in enumerate(zip(reference, outputs, strict=True)):
                errors[k] += np.sum(np.square(np.subtract(a, b, dtype=np.float64)))
                signals[k] += np.sum(np.square(a, dtype=np.float64))
            if self._scores is not None:
                ours.append(_logits(reference[self._scores]))
                theirs.append(_logits(outputs[self._scores]))
            if batch.labels is not None:
                labels.append(batch.labels)
            samples += batch.samples
        with np.errstate(divide="ignore"):
            ratio = float(np.max(errors / np.maximum(signals, np.finfo(float).tiny)))
            sqnr = float(-10 * np.log10(ratio)) if ratio > 0 else float("inf")
        if not ours:
            return Quality(ratio, sqnr, None, None, samples)
        a, b = np.concatenate(ours), np.concatenate(theirs)
        known = np.concatenate(labels) if labels else None
        noise = float(np.sum((a - b) ** 2) / max(np.sum(a**2), np.finfo(float).tiny))
        return Quality(noise, sqnr, *_drops(a, b, known), samples)

    def _run(self, session: Session, batch: Batch) -> list[NDArray[Any]]:
        outputs = session.run(batch.feeds, self._names)
        fed = max((len(v) for v in batch.feeds.values() if v.ndim), default=0)
        return [v[: batch.samples] if v.ndim and len(v) == fed else v for v in outputs.values()]

    def _find_scores(self) -> int | None:
        """Return the position of the only output that is ``[N, classes]`` or with unit axes."""
        found = [
            k
            for k, value in enumerate(self._reference[0])
            if value.ndim >= 2 and value.shape[1] > 1 and set(value.shape[2:]) <= {1}
        ]
        return found[0] if len(found) == 1 else None


def _logits(scores: NDArray[Any]) -> Array:
    """Return centred logits, ``(N, classes)``: of probabilities their logarithms."""
    values = np.asarray(scores, np.float64).reshape(len(scores), -1)
    if values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        values = np.log(np.maximum(values, _SMALLEST))
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _drops(a: Array, b: Array, labels: NDArray[np.int64] | None) -> tuple[float, float]:
    """Return the points lost as counted, and as expected of Gaussian errors."""
    if labels is not None and labels.max(initial=0) >= a.shape[1]:
        raise DataError(
            f"label {labels.max()} is out of range: the model has {a.shape[1]} classes; "
            "check the labels"
        )
    wanted = a.argmax(axis=1) if labels is None else labels
    before = np.mean(a.argmax(axis=1) == wanted)
    after = np.mean(b.argmax(axis=1) == wanted)
    rows = np.arange(len(a))
    others = a.copy()
    others[rows, wanted] = -np.inf
    margin = a[rows, wanted] - others.max(axis=1)
    # The difference of two scores has twice their variance.
    spread = np.sqrt(2 * np.mean((a - b) ** 2, axis=1))
    normal = NormalDist()
    kept = [
        normal.cdf(m / s) if s > 0 else float(m > 0) for m, s in zip(margin, spread, strict=True)
    ]
    return 100 * float(before - after), 100 * float(before - np.mean(kept))
