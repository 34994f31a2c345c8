"""Do two models give the same answers? Outputs compared on the same inputs, and a verdict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.data import Batch, Dataset, random_dataset
from onnx_lowrank.data.random import RANDOM_SAMPLES
from onnx_lowrank.errors import DataError, ProviderError
from onnx_lowrank.measure.remembered import RememberedModel
from onnx_lowrank.measure.score import OutputRows, Score
from onnx_lowrank.measure.verification.classification import Classification
from onnx_lowrank.measure.verification.classifier import class_outputs
from onnx_lowrank.measure.verification.comparison import OutputStatistics
from onnx_lowrank.measure.verification.criteria import Measured, asked_for, failures_of, notes_of
from onnx_lowrank.measure.verification.report import EngineResult, Tolerance, VerifyReport
from onnx_lowrank.runtime import TensorInfo
from onnx_lowrank.runtime.engines import Engine, LoadedModel, default_engines

if TYPE_CHECKING:
    import onnx

    Model = onnx.ModelProto | str | os.PathLike[str]


def verify(
    original: Model | RememberedModel,
    compressed: Model,
    data: Dataset | None = None,
    *,
    engines: Sequence[Engine] | None = None,
    tolerance: Tolerance | None = None,
    output: str | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    score: Score | None = None,
) -> VerifyReport:
    """Run two models on the same inputs and compare every output.

    Errors are accumulated in float64, batch by batch: memory does not grow with the number of
    samples, unless a score is to be told, which takes all outputs at once.

    Parameters
    ----------
    original : onnx.ModelProto, path or RememberedModel
        The original; one that is remembered runs only where its outputs are not known.
    compressed : onnx.ModelProto or path
        What was made of it.
    data : Dataset, optional
        Inputs, made for the original; 8 random samples by default.
    engines : sequence of Engine, optional
        Where to run both. By default in onnxruntime on the CPU, and on CUDA where that works; the
        report says if and why it does not. An engine that is given must work.
    tolerance : Tolerance, optional
        What the verdict asks for; by default `DEFAULT_SQNR_DB` of every float output, and no more
        than `DEFAULT_DROP` points of accuracy lost where there are labels.
    output : str, optional
        The output that holds a score for each class, ``[N, classes]`` with any axes of length 1
        behind; by default the only such one.
    input_shapes : mapping of str to sequence of int, optional
        Shapes of the random samples where the model leaves them open.
    score : Score, optional
        A user's figure of merit.

    Raises
    ------
    DataError
        The data do not fit the model, are empty, or have labels out of range; `output` is no such
        output; the score fails.
    ProviderError
        onnxruntime or an engine that was given is missing.
    ModelError
        An engine cannot load or run a model.
    """
    chosen = default_engines() if engines is None else engines
    if not chosen:
        raise ProviderError("there is no engine to verify in; give one or more")
    if engines is not None:
        for engine in engines:  # all of them, before the first one's work
            engine.require()
    results: dict[str, EngineResult] = {}
    unchecked: dict[str, str] = {}
    samples = 0
    classifier: str | None = None
    notes: tuple[str, ...] = ()
    for engine in chosen:
        try:
            if isinstance(original, RememberedModel):
                first = original.load(engine)
            else:
                first = engine.load(original)
            second = engine.load(compressed)
        except ProviderError as error:
            if engines is not None or engine.name == "cpu":
                raise
            unchecked[engine.name] = str(error)
            continue
        if data is None:
            data = random_dataset(first.inputs, count=RANDOM_SAMPLES, input_shapes=input_shapes)
        comparison = _Comparison(first, second, output, score)
        if comparison.runnable:
            for batch in data:
                comparison.add(batch)
        results[engine.name] = comparison.result(tolerance)
        samples, classifier = comparison.samples, comparison.classifier
        notes = (*comparison.notes, *data.notes)
    asked = {engine.name for engine in chosen}
    unchecked |= {e.name: "not asked for" for e in default_engines() if e.name not in asked}
    return VerifyReport(results, unchecked, samples, classifier, notes)


class _Comparison:
    """Two loaded models and what their outputs were found to be so far."""

    def __init__(
        self,
        original: LoadedModel,
        compressed: LoadedModel,
        output: str | None,
        score: Score | None,
    ) -> None:
        self._original = original
        self._compressed = compressed
        self.samples = 0
        self._failures = _interface_failures(original, compressed)
        theirs = {o.name for o in compressed.outputs if _is_tensor(o)}
        self._common = [o for o in original.outputs if o.name in theirs and _is_tensor(o)]
        same_inputs = _signature(original.inputs) == _signature(compressed.inputs)
        self.runnable = same_inputs and bool(self._common)
        self._statistics = {o.name: OutputStatistics(o.name) for o in self._common}
        self._output = output
        self._score = score
        self._rows = OutputRows(), OutputRows()
        self._labels: list[NDArray[np.int64]] = []
        known = [o.name for o in original.outputs]
        if output is not None and output not in known:
            raise DataError(f"the model has no output '{output}'; it has {', '.join(known)}")
        if not self._common and not self._failures:
            self._failures.append("no output is a tensor; there is nothing to compare")
        self.classifier: str | None = None
        self._classes: Classification | None = None
        self._no_classes = "no output is [N, classes]"
        self._labelled = False
        self.notes: tuple[str, ...] = tuple(
            f"output '{o.name}' is a {o.type}, which is not compared"
            for o in original.outputs
            if not _is_tensor(o)
        )
        kept = {info.name for info in compressed.optional_inputs}
        frozen = [info.name for info in original.optional_inputs if info.name not in kept]
        if frozen:
            names = ", ".join(f"'{name}'" for name in frozen[:3])
            more = f" and {len(frozen) - 3} more" if len(frozen) > 3 else ""
            self.notes += (
                f"inputs that a caller may override in the original are constants in the "
                f"compressed model: {names}{more}",
            )

    def add(self, batch: Batch) -> None:
        """Run both models on a batch and compare."""
        names = [o.name for o in self._common]
        ours = batch.without_copies(self._original.run(batch.feeds, names))
        theirs = batch.without_copies(self._compressed.run(batch.feeds, names))
        if self.samples == 0:
            self._find_classifier(ours, batch)
        if self._score is not None:
            for rows, values in zip(self._rows, (ours, theirs), strict=True):
                rows.add(values, batch.samples)
            self._labels += [] if batch.labels is None else [batch.labels]
        for name in names:
            self._statistics[name].add(ours[name], theirs[name], samples=batch.samples)
        if self.classifier is not None and self._classes is not None:
            a, b = ours[self.classifier], theirs[self.classifier]
            if not self._classes.fits(a, batch.samples):  # detections, or sizes of the input
                self._no_classes = (
                    f"output '{self.classifier}' has not the same classes in every batch"
                )
                self.notes += (f"classes were not compared: {self._no_classes}",)
                self.classifier = self._classes = None
            elif a.shape == b.shape:
                self._classes.add(
                    a.reshape(batch.samples, -1), b.reshape(batch.samples, -1), batch.labels
                )
        self.samples += batch.samples

    def _find_classifier(self, values: Mapping[str, Any], batch: Batch) -> None:
        """Choose the output with one float score per class; say why where there is none."""
        found = class_outputs(values, batch.samples)
        if self._output is not None:
            if self._output not in found:
                raise DataError(
                    f"output '{self._output}' is not [N, classes] of floats; "
                    f"such outputs: {', '.join(found) or 'none'}"
                )
            found = [self._output]
        self._labelled = batch.labels is not None
        if len(found) == 1:
            self.classifier = found[0]
            self._classes = Classification()
        elif found:
            self._no_classes = f"several outputs are [N, classes]: {', '.join(found)}"
            self.notes += (
                f"classes were not compared: name one of the outputs {', '.join(found)}",
            )
        elif batch.labels is not None:
            self.notes += (f"accuracy was not measured: {self._no_classes}",)

    def result(self, tolerance: Tolerance | None) -> EngineResult:
        """Return the figures and what of them falls short of what is asked for."""
        classes = self._classes if self._classes is not None and self._classes.samples else None
        measured = Measured(
            outputs=tuple(self._statistics.values()),
            classes=classes,
            no_classes=self._no_classes,
            labelled=self._labelled,
            score=self._scores() if self.runnable else {},
            samples=self.samples,
        )
        asked = asked_for(tolerance, measured)
        failures = self._failures + failures_of(
            measured, asked, runnable=self.runnable and not self._failures
        )
        self.notes += notes_of(measured, asked)
        agreement: dict[str, Any] = {"top1": None, "top5": None}
        return EngineResult(
            outputs=tuple(s.to_dict() for s in measured.outputs) if self.runnable else (),
            agreement=agreement if classes is None else classes.agreement(),
            accuracy={} if classes is None else classes.accuracy(),
            top1_interval=None if classes is None else classes.top1_interval(),
            failures=tuple(failures),
            score=measured.score,
            settings=dict(self._original.settings),
        )

    def _scores(self) -> dict[str, Any]:
        """Return the user's score of both models."""
        if self._score is None:
            return {}
        reference, outputs = (rows.result() for rows in self._rows)
        labels = np.concatenate(self._labels) if self._labels else None
        before, after = (self._score(each, reference, labels) for each in (reference, outputs))
        return {
            "name": self._score.name,
            "original": before,
            "compressed": after,
            "drop": before - after,
        }


def _is_tensor(info: TensorInfo) -> bool:
    return info.type.startswith("tensor(")


def _signature(infos: Sequence[TensorInfo]) -> set[tuple[str, str]]:
    return {(i.name, i.type) for i in infos}


def _interface_failures(original: LoadedModel, compressed: LoadedModel) -> list[str]:
    """Return sentences on inputs and outputs that one of the models lacks or types otherwise."""
    failures = []
    for kind, ours, theirs in (
        ("input", original.inputs, compressed.inputs),
        ("output", original.outputs, compressed.outputs),
    ):
        found = {i.name: i for i in theirs}
        wanted = {i.name for i in ours}
        for info in ours:
            other = found.get(info.name)
            if other is None:
                failures.append(
                    f"{kind} '{info.name}' is missing in the compressed model, which has "
                    f"{', '.join(found) or 'none'}"
                )
            elif other.type != info.type:
                failures.append(f"{kind} '{info.name}' is {other.type} instead of {info.type}")
        failures += [
            f"{kind} '{name}' of the compressed model is not in the original"
            for name in found
            if name not in wanted
        ]
    return failures
