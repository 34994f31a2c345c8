"""What a whole model loses on samples that the fits did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any
from uuid import uuid4

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime import Provider, Session, open_session
from onnx_lowrank.score import OutputRows, Outputs, Score
from onnx_lowrank.searching.outlook import CountedOutlook, MeanOutlook, Outlook
from onnx_lowrank.store import key_of

Array = NDArray[np.float64]
PROBE_SAMPLES = 32  # the noise of a probe, a ratio of sums over all outputs, settles early
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
        What is lost of a user's score where there is one; otherwise points of accuracy where there
        are labels, of top-1 agreement where not; None where there are no classes.
    expected_drop : float or None
        The same as expected if every class's score had a Gaussian error as large as the one seen:
        it does not depend on which of the few samples happened to change sides. None for a user's
        score.
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
        expected = self.drop if self.expected_drop is None else self.expected_drop
        return max(self.drop, expected) <= budget.max_drop

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


@dataclass(eq=False)
class _Seen:
    """A model's outputs beside the original's.

    Squared errors and signals are of every batch and float output, scores of every sample.
    """

    errors: Array
    signals: Array
    ours: Array | None = None
    theirs: Array | None = None
    outputs: list[Outputs] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Squared error over squared signal of the worst output."""
        errors, signals = self.errors.sum(axis=0), self.signals.sum(axis=0)
        return float(np.max(errors / np.maximum(signals, np.finfo(float).tiny)))

    @property
    def noise(self) -> float:
        """The same of the scores, where there are any."""
        if self.ours is None or self.theirs is None:
            return self.ratio
        error = np.sum((self.ours - self.theirs) ** 2)
        return float(error / max(np.sum(self.ours**2), np.finfo(float).tiny))


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
    score : Score, optional
        A user's figure of merit, whose loss is then the drop.
    provider : {"cpu", "cuda"}
        Where the models run.

    Raises
    ------
    ModelError
        The model has no float output.
    DataError
        What the data set and the score raise.
    """

    def __init__(
        self,
        original: onnx.ModelProto,
        dataset: Dataset,
        *,
        threads: int | None = None,
        score: Score | None = None,
        provider: Provider = "cpu",
    ) -> None:
        self._dataset = dataset
        self._threads = threads
        self._provider: Provider = provider
        session = open_session(original, provider=provider, threads=threads)
        tensors = [o for o in session.outputs if o.type.startswith("tensor(")]
        self._floats = [o.name for o in tensors if o.dtype is not None and o.dtype.kind == "f"]
        if not self._floats:
            raise ModelError("no output of the model is of floats; there is no loss to measure")
        self._names = self._floats if score is None else [o.name for o in tensors]
        self._reference: list[Outputs] = []
        self._samples: list[int] = []
        labels = []
        for batch in dataset:
            self._reference.append(self._run(session, batch))
            self._samples.append(batch.samples)
            labels += [] if batch.labels is None else [batch.labels]
        self._labels = np.concatenate(labels) if labels else None
        self._classes = self._find_classes()
        self._score = None
        if score is not None:
            rows = _rows(self._reference, self._samples)
            self._score = _Judge(score, rows, self._labels)

    @property
    def has_drop(self) -> bool:
        """Whether there is a score of the user's, or one output with a score for each class."""
        return self._score is not None or self._classes is not None

    @property
    def digest(self) -> str:
        """What a measurement depends on besides models and data."""
        score = "" if self._score is None else self._score.digest
        return score if self._provider == "cpu" else f"{self._provider} {score}"

    def measure(self, model: onnx.ModelProto) -> Quality:
        """Run a model on all samples and compare."""
        seen = self._see(model)
        ratio = seen.ratio
        sqnr = float(-10 * np.log10(ratio)) if ratio > 0 else float("inf")
        drop: float | None = None
        expected: float | None = None
        if self._score is not None:
            drop = self._score.drop(_rows(seen.outputs, self._samples))
        elif seen.ours is not None and seen.theirs is not None:
            drop, expected = _drops(seen.ours, seen.theirs, self._labels)
        return Quality(seen.noise, sqnr, drop, expected, sum(self._samples))

    def noise(self, model: onnx.ModelProto) -> float:
        """Return the noise of `measure`, of some samples only: `PROBE_SAMPLES` or so."""
        return self._see(model, step=max(sum(self._samples) // PROBE_SAMPLES, 1)).noise

    def outlook(self, model: onnx.ModelProto, budget: Budget) -> Outlook | None:
        """Return what the samples say of others: of what the budget bounds.

        That is the drop, or the signal-to-error ratio where only that is bounded. None where the
        model computes the same, or there are no classes.
        """
        seen = self._see(model)
        if budget.max_drop is None and budget.min_sqnr_db is not None:

            def sqnr(places: NDArray[np.int64]) -> float:
                errors, signals = (each[places].sum(axis=0) for each in (seen.errors, seen.signals))
                with np.errstate(divide="ignore"):
                    ratios = errors / np.maximum(signals, np.finfo(float).tiny)
                    return float(-10 * np.log10(np.max(ratios)))

            samples = sum(self._samples)
            return MeanOutlook.of("sqnr_db", samples, sqnr, units=len(self._samples))
        if self._score is not None:
            return self._score.outlook(_rows(seen.outputs, self._samples))
        if seen.ours is None or seen.theirs is None:
            return None
        first, second = seen.ours.argmax(axis=1), seen.theirs.argmax(axis=1)
        if self._labels is None:
            return CountedOutlook.of("agreement", (first != second).astype(np.int64))
        right = (first == self._labels).astype(np.int64)
        return CountedOutlook.of("accuracy", right - (second == self._labels))

    def _see(self, model: onnx.ModelProto, *, step: int = 1) -> _Seen:
        """Run a model on every `step`-th batch."""
        session = open_session(model, provider=self._provider, threads=self._threads)
        shape = (len(self._reference), len(self._floats))
        seen = _Seen(np.zeros(shape), np.zeros(shape))
        ours, theirs = [], []
        for place, (batch, reference) in enumerate(
            zip(self._dataset, self._reference, strict=True)
        ):
            if place % step:
                continue
            outputs = self._run(session, batch)
            for k, name in enumerate(self._floats):
                a, b = reference[name], outputs[name]
                seen.errors[place, k] = np.sum(np.square(np.subtract(a, b, dtype=np.float64)))
                seen.signals[place, k] = np.sum(np.square(a, dtype=np.float64))
            if self._classes is not None:
                ours.append(_logits(reference[self._classes]))
                theirs.append(_logits(outputs[self._classes]))
            if self._score is not None:
                seen.outputs.append(outputs)
        if ours:
            seen.ours, seen.theirs = np.concatenate(ours), np.concatenate(theirs)
        return seen

    def _run(self, session: Session, batch: Batch) -> Outputs:
        outputs = session.run(batch.feeds, self._names)
        fed = max((len(v) for v in batch.feeds.values() if v.ndim), default=0)
        return {
            name: value[: batch.samples] if value.ndim and len(value) == fed else value
            for name, value in outputs.items()
        }

    def _find_classes(self) -> str | None:
        """Return the only float output that is ``[N, classes]`` or with unit axes behind."""
        found = [
            name
            for name in self._floats
            for shape in [self._reference[0][name].shape]
            if len(shape) >= 2 and shape[1] > 1 and set(shape[2:]) <= {1}
        ]
        return found[0] if len(found) == 1 else None


class _Judge:
    """A user's score of models, beside that of the original."""

    def __init__(self, score: Score, reference: Outputs, labels: NDArray[np.int64] | None) -> None:
        self._score = score
        self._reference = reference
        self._labels = labels
        self._base = self._of(reference, None)
        # What the original gets tells versions of a score apart that its source does not.
        self.digest = key_of(score.digest or uuid4().hex, self._base)

    def drop(self, outputs: Outputs) -> float:
        return self._base - self._of(outputs, None)

    def outlook(self, outputs: Outputs) -> MeanOutlook | None:
        def drop(places: NDArray[np.int64]) -> float:
            return self._of(self._reference, places) - self._of(outputs, places)

        samples = len(next(iter(outputs.values())))
        return MeanOutlook.of("score", samples, drop)

    def _of(self, outputs: Outputs, places: NDArray[np.int64] | None) -> float:
        if places is None:
            return self._score(outputs, self._reference, self._labels)
        some, reference = (
            {name: value[places] for name, value in each.items()}
            for each in (outputs, self._reference)
        )
        return self._score(some, reference, None if self._labels is None else self._labels[places])


def _rows(batches: Sequence[Outputs], samples: Sequence[int]) -> Outputs:
    rows = OutputRows()
    for outputs, count in zip(batches, samples, strict=True):
        rows.add(outputs, count)
    return rows.result()


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
