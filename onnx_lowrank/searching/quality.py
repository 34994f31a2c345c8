"""What a whole model loses on samples that the fits did not see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime import Provider, Session, open_session
from onnx_lowrank.score import Outputs, Score
from onnx_lowrank.searching.judge import Judge, rows_of
from onnx_lowrank.searching.margins import Margins
from onnx_lowrank.searching.outlook import CountedOutlook, MeanOutlook, Outlook

Array = NDArray[np.float64]
SURE = 0.9  # probability that the verdict agrees, where its samples are foreseen
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
        The same as expected of Gaussian errors of the margins as large as those seen: it does not
        depend on which of the few samples happened to change sides. None for a user's score.
    samples : int
        Number of samples.
    margins : Margins or None
        Where both drops come from; None for a user's score.
    sqnr : MeanOutlook or None
        What `sqnr_db` says of other samples; None where the samples cannot tell.
    """

    noise: float
    sqnr_db: float
    drop: float | None
    expected_drop: float | None
    samples: int
    margins: Margins | None = None
    sqnr: MeanOutlook | None = None

    def within(self, budget: Budget, *, unseen: int | None = None) -> bool:
        """Whether the model is within the budget's bounds on quality.

        The signal-to-error ratio is where it is likely to be so on `unseen` other samples, by
        default as many: at the bound itself, others would miss it as often as not. The points lost
        count as within their bound where counted and expected ones are. Of few samples, one may be
        more than the bound: then they also do where the margins make it likely that other samples
        lose no more.
        """
        if (least := budget.min_sqnr_db) is not None:
            sure = self.sqnr is None or self.sqnr.chance(least, unseen or self.samples) >= SURE
            if self.sqnr_db < least or not sure:
                return False
        if budget.max_drop is None:
            return True
        assert self.drop is not None
        expected = self.drop if self.expected_drop is None else self.expected_drop
        if max(self.drop, expected) <= budget.max_drop:
            return True
        if self.margins is None:
            return False
        return self.margins.chance(budget.max_drop, unseen or self.samples) >= SURE

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "noise": self.noise,
            "sqnr_db": None if np.isinf(self.sqnr_db) else self.sqnr_db,
            "drop": self.drop,
            "expected_drop": self.expected_drop,
            "samples": self.samples,
            "margins": None if self.margins is None else vars(self.margins),
            "sqnr": None if self.sqnr is None else vars(self.sqnr),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Quality:
        """Read what `to_dict` gave."""
        sqnr = float("inf") if data["sqnr_db"] is None else data["sqnr_db"]
        margins = None if data["margins"] is None else Margins(**data["margins"])
        told = None if data["sqnr"] is None else MeanOutlook(**data["sqnr"])
        drop, expected = data["drop"], data["expected_drop"]
        return cls(data["noise"], sqnr, drop, expected, data["samples"], margins, told)


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
        # Once for all models: two sides of a comparison must mean the same.
        self._probable = self._classes is not None and all(
            _probabilities(outputs[self._classes]) for outputs in self._reference
        )
        self._score = None
        if score is not None:
            rows = rows_of(self._reference, self._samples)
            self._score = Judge(score, rows, self._labels)

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
        told = self._sqnr_outlook(seen)
        samples = sum(self._samples)
        if self._score is not None:
            drop = self._score.drop(rows_of(seen.outputs, self._samples))
            return Quality(seen.noise, sqnr, drop, None, samples, None, told)
        if seen.ours is None or seen.theirs is None:
            return Quality(seen.noise, sqnr, None, None, samples, None, told)
        margins = self._margins(seen.ours, seen.theirs)
        lost = (margins.drop, margins.expected_drop)
        return Quality(seen.noise, sqnr, *lost, samples, margins, told)

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
            return self._sqnr_outlook(seen)
        if self._score is not None:
            return self._score.outlook(rows_of(seen.outputs, self._samples))
        if seen.ours is None or seen.theirs is None:
            return None
        first, second = seen.ours.argmax(axis=1), seen.theirs.argmax(axis=1)
        if self._labels is None:
            return CountedOutlook.of("agreement", (first != second).astype(np.int64))
        right = (first == self._labels).astype(np.int64)
        return CountedOutlook.of("accuracy", right - (second == self._labels))

    def chance(self, model: onnx.ModelProto, budget: Budget, unseen: int) -> float:
        """Return the probability that so many other samples keep a model within the budget.

        That of the bound which is the least likely to hold; 0 where the samples cannot tell.
        """
        seen = self._see(model)
        if seen.ratio == 0:
            return 1.0
        chances = [1.0]
        if (least := budget.min_sqnr_db) is not None:
            told = self._sqnr_outlook(seen)
            chances.append(0.0 if told is None else told.chance(least, unseen))
        if (most := budget.max_drop) is not None:
            outlook: MeanOutlook | Margins | None = None
            if self._score is not None:
                outlook = self._score.outlook(rows_of(seen.outputs, self._samples))
            elif seen.ours is not None and seen.theirs is not None:
                outlook = self._margins(seen.ours, seen.theirs)
            chances.append(0.0 if outlook is None else outlook.chance(most, unseen))
        return min(chances)

    def _sqnr_outlook(self, seen: _Seen) -> MeanOutlook | None:
        def sqnr(places: NDArray[np.int64]) -> float:
            errors, signals = (each[places].sum(axis=0) for each in (seen.errors, seen.signals))
            with np.errstate(divide="ignore"):
                ratios = errors / np.maximum(signals, np.finfo(float).tiny)
                return float(-10 * np.log10(np.max(ratios)))

        samples = sum(self._samples)
        return MeanOutlook.of("sqnr_db", samples, sqnr, units=len(self._samples))

    def _margins(self, ours: Array, theirs: Array) -> Margins:
        """Compare centred logits, ``(N, classes)``; without labels the original is right."""
        labels = self._labels
        if labels is not None and labels.max(initial=0) >= ours.shape[1]:
            raise DataError(
                f"label {labels.max()} is out of range: the model has {ours.shape[1]} classes; "
                "check the labels"
            )
        return Margins.of(ours, theirs, ours.argmax(axis=1) if labels is None else labels)

    def _see(self, model: onnx.ModelProto, *, step: int = 1) -> _Seen:
        """Run a model on every `step`-th batch."""
        session = open_session(model, provider=self._provider, threads=self._threads)
        shape = (len(self._reference), len(self._floats))
        seen = _Seen(np.zeros(shape), np.zeros(shape))
        ours: list[Array] = []
        theirs: list[Array] = []
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
                for found, side in ((ours, reference), (theirs, outputs)):
                    found.append(_logits(side[self._classes], probable=self._probable))
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


def _probabilities(scores: NDArray[Any]) -> bool:
    """Whether the scores of every sample are probabilities."""
    values = np.asarray(scores, np.float64).reshape(len(scores), -1)
    return bool(values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3))


def _logits(scores: NDArray[Any], *, probable: bool) -> Array:
    """Return centred logits, ``(N, classes)``: of probabilities their logarithms."""
    values = np.asarray(scores, np.float64).reshape(len(scores), -1)
    if probable:
        values = np.log(np.maximum(values, _SMALLEST))
    return np.asarray(values - values.mean(axis=1, keepdims=True))
