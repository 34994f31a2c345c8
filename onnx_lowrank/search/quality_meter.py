"""Measures what whole models lose on the samples of a search."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.bounds import SQNR_CAP_DB
from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.graph.digest import model_digest
from onnx_lowrank.measure.remembered import RememberedModel
from onnx_lowrank.measure.score import Outputs, Score
from onnx_lowrank.measure.verification.classifier import (
    are_probabilities,
    centred_logits,
    class_outputs,
    common_share,
    varying_db,
)
from onnx_lowrank.measure.verification.scales import Part, parts_of
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime.engines import CPU, Engine, LoadedModel
from onnx_lowrank.search.margins import Margins
from onnx_lowrank.search.observed import ObservedOutputs
from onnx_lowrank.search.prediction import CountPredictor, MeanPredictor, Predictor
from onnx_lowrank.search.quality import Quality, scores_hold
from onnx_lowrank.search.settings import SETTINGS
from onnx_lowrank.search.user_score import UserScore, rows_of
from onnx_lowrank.types import Array

KEPT = 2  # models whose outputs are kept: a fit and its refit, of which one is asked about again
BEYOND = 1e30  # noise, loss, and dB too few, of a model whose outputs are not finite


class QualityMeter:
    """Compares models with the original over a data set.

    The original runs once; its outputs are kept in memory.

    Parameters
    ----------
    original : onnx.ModelProto or RememberedModel
        The original.
    dataset : Dataset
        Samples, with labels or without.
    score : Score, optional
        A user's figure of merit, whose loss is then the drop.
    engine : Engine
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
        original: onnx.ModelProto | RememberedModel,
        dataset: Dataset,
        *,
        score: Score | None = None,
        engine: Engine = CPU,
    ) -> None:
        self._dataset = dataset
        self._engine = engine
        self._observed: dict[str, ObservedOutputs] = {}
        if isinstance(original, RememberedModel):
            loaded = original.load(engine)
        else:
            loaded = engine.load(original)
        tensors = [o for o in loaded.outputs if o.type.startswith("tensor(")]
        self._floats = [o.name for o in tensors if o.dtype is not None and o.dtype.kind == "f"]
        if not self._floats:
            raise ModelError("no output of the model is of floats; there is no loss to measure")
        self._names = self._floats if score is None else [o.name for o in tensors]
        self._reference: list[Outputs] = []
        self._samples: list[int] = []
        labels = []
        for batch in dataset:
            self._reference.append(self._run(loaded, batch))
            self._samples.append(batch.samples)
            labels += [] if batch.labels is None else [batch.labels]
        self._labels = np.concatenate(labels) if labels else None
        self._classes = self._find_classes()
        # Once for all models: two sides of a comparison must mean the same.
        self._probable = self._classes is not None and are_probabilities(
            self._reference[0][self._classes]
        )
        self._parts: list[tuple[str, Part | None]] = []
        for name in self._floats:
            values = [outputs[name] for outputs in self._reference]
            found = parts_of(zip(values, self._samples, strict=True))
            self._parts += [(name, part) for part in found or (None,)]
        self._score = None
        if score is not None:
            rows = rows_of(self._reference, self._samples)
            self._score = UserScore(score, rows, self._labels)

    @property
    def has_drop(self) -> bool:
        """Whether there is a score of the user's, or one output with a score for each class."""
        return self._score is not None or self._classes is not None

    @property
    def digest(self) -> str:
        """What a measurement depends on besides models and data."""
        score = "" if self._score is None else self._score.digest
        return score if self._engine.name == "cpu" else f"{self._engine.name} {score}"

    def measure(self, model: onnx.ModelProto) -> Quality:
        """Run a model on all samples and compare."""
        pair = self._observe(model)
        samples = sum(self._samples)
        if not np.isfinite(pair.ratio):  # NaN or Inf among the outputs: beyond any bound
            drop = BEYOND if self.has_drop else None
            return Quality(BEYOND, -BEYOND, drop, None, samples)
        sqnr = pair.sqnr_db()
        predictor = self._sqnr_predictor(pair)
        if self._score is not None:
            drop = self._score.drop(rows_of(pair.outputs, self._samples))
            return Quality(pair.noise, sqnr, drop, None, samples, None, predictor)
        if pair.ours is None or pair.theirs is None:
            return Quality(pair.noise, sqnr, None, None, samples, None, predictor)
        margins = self._margins(pair.ours, pair.theirs)
        lost = (margins.drop, margins.expected_drop)
        return Quality(pair.noise, sqnr, *lost, samples, margins, predictor, *self._scores(pair))

    def noise(self, model: onnx.ModelProto, *, samples: int = SETTINGS.probe_samples) -> float:
        """Return the noise that `measure` gives, of about so many samples only."""
        pair = self._run_all(model, step=max(sum(self._samples) // samples, 1))
        return pair.noise if np.isfinite(pair.ratio) else BEYOND

    def predictor(self, model: onnx.ModelProto, budget: Budget) -> Predictor | None:
        """Return what the samples say of others: of what the budget bounds.

        That is the drop, or the signal-to-error ratio where only that is bounded. None where the
        model computes the same, or there are no classes.
        """
        pair = self._observe(model)
        if budget.max_drop is None and budget.min_sqnr_db is not None:
            return self._sqnr_predictor(pair)
        if self._score is not None:
            return self._score.predictor(rows_of(pair.outputs, self._samples))
        if pair.ours is None or pair.theirs is None:
            return None
        first, second = pair.ours.argmax(axis=1), pair.theirs.argmax(axis=1)
        if self._labels is None:
            return CountPredictor.of("agreement", (first != second).astype(np.int64))
        right = (first == self._labels).astype(np.int64)
        return CountPredictor.of("accuracy", right - (second == self._labels))

    def chance(self, model: onnx.ModelProto, budget: Budget, unseen: int) -> float:
        """Return the probability that so many other samples keep a model within the budget.

        That of the bound which is the least likely to hold; 0 where the samples cannot tell.
        """
        pair = self._observe(model)
        if pair.ratio == 0 or not np.isfinite(pair.ratio):
            return float(pair.ratio == 0)
        chances = [1.0]
        if (least := budget.min_sqnr_db) is not None:
            sqnr = self._sqnr_predictor(pair)
            chances.append(0.0 if sqnr is None else sqnr.chance(least, unseen))
        if (most := budget.max_drop) is not None:
            predictor: MeanPredictor | Margins | None = None
            if self._score is not None:
                predictor = self._score.predictor(rows_of(pair.outputs, self._samples))
            elif pair.ours is not None and pair.theirs is not None:
                predictor = self._margins(pair.ours, pair.theirs)
                if not scores_hold(*self._scores(pair), budget):
                    chances.append(0.0)
            chances.append(0.0 if predictor is None else predictor.chance(most, unseen))
        return min(chances)

    def _sqnr_predictor(self, pair: ObservedOutputs) -> MeanPredictor | None:
        def sqnr(places: NDArray[np.int64]) -> float:
            found = pair.sqnr_db(places)
            return found if found < SQNR_CAP_DB else np.inf  # there is no error

        samples = sum(self._samples)
        return MeanPredictor.of("sqnr_db", samples, sqnr, units=len(self._samples))

    def _scores(self, pair: ObservedOutputs) -> tuple[float | None, float | None]:
        """Return `common` and `varying_db` of `Quality`: of agreement alone."""
        if self._labels is not None or pair.ours is None or pair.theirs is None:
            return None, None
        return common_share(pair.ours.argmax(axis=1)), varying_db(pair.ours, pair.theirs)

    def _find_classes(self) -> str | None:
        """Return the only output that holds scores of classes, as many in every batch."""
        found = class_outputs(self._reference[0], self._samples[0])
        if len(found) != 1:
            return None
        rows = zip((outputs[found[0]] for outputs in self._reference), self._samples, strict=True)
        return found[0] if len({(len(each) / n, each.size / n) for each, n in rows}) == 1 else None

    def _margins(self, ours: Array, theirs: Array) -> Margins:
        """Compare centred logits, ``(N, classes)``; without labels the original is right."""
        labels = self._labels
        if labels is not None and labels.max(initial=0) >= ours.shape[1]:
            raise DataError(
                f"label {labels.max()} is out of range: the model has {ours.shape[1]} classes; "
                "check the labels"
            )
        return Margins.of(ours, theirs, ours.argmax(axis=1) if labels is None else labels)

    def _observe(self, model: onnx.ModelProto) -> ObservedOutputs:
        """Run a model on all samples, unless it is one of the last two."""
        key = model_digest(model)
        if key not in self._observed:
            if len(self._observed) >= KEPT:
                self._observed.pop(next(iter(self._observed)))
            self._observed[key] = self._run_all(model)
        return self._observed[key]

    def _run_all(self, model: onnx.ModelProto, *, step: int = 1) -> ObservedOutputs:
        """Run a model on every `step`-th batch."""
        loaded = self._engine.load(model)
        shape = (len(self._reference), len(self._parts))
        pair = ObservedOutputs(np.zeros(shape), np.zeros(shape))
        ours: list[Array] = []
        theirs: list[Array] = []
        for place, (batch, reference) in enumerate(
            zip(self._dataset, self._reference, strict=True)
        ):
            if place % step:
                continue
            outputs = self._run(loaded, batch)
            for k, (name, part) in enumerate(self._parts):
                a, b = reference[name], outputs[name]
                if part is not None:
                    a, b = (np.take(each, part.places, axis=part.axis) for each in (a, b))
                with np.errstate(over="ignore", invalid="ignore"):  # beyond any bound, then
                    pair.errors[place, k] = np.sum(np.square(np.subtract(a, b, dtype=np.float64)))
                    pair.signals[place, k] = np.sum(np.square(a, dtype=np.float64))
            if self._classes is not None:
                for found, side in ((ours, reference), (theirs, outputs)):
                    found.append(centred_logits(side[self._classes], probabilities=self._probable))
            if self._score is not None:
                pair.outputs.append(outputs)
        if ours:
            pair.ours, pair.theirs = np.concatenate(ours), np.concatenate(theirs)
        return pair

    def _run(self, loaded: LoadedModel, batch: Batch) -> Outputs:
        return batch.without_copies(loaded.run(batch.feeds, self._names))
