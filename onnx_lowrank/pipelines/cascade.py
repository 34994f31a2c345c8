"""Layers approximated one after the other, the network trained back after each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Arrays, Cache, key_of
from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.errors import ModelError, PlanError
from onnx_lowrank.files import source_path
from onnx_lowrank.fitting.statistics.jobs import Survey
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.io import load_model, save_model
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.pipelines.compress import compress
from onnx_lowrank.pipelines.plans import PlanSource, resolve_plan
from onnx_lowrank.pipelines.result import FileBytes
from onnx_lowrank.planning.cost import plan_costs, total_cost
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training import require_torch
from onnx_lowrank.training.settings import (
    BATCH,
    RATES,
    LossName,
    Part,
    Schedule,
    TrainingSettings,
)
from onnx_lowrank.types import ModelSource, Progress, silent

if TYPE_CHECKING:
    from onnx_lowrank.training.train import Score

# Samples for statistics: the fits shrink what few samples estimate badly.
STATISTICS_LIMIT = 300
FORMAT = 1  # of a cached stage, and of the arithmetic behind it


@dataclass(frozen=True)
class Stage:
    """One layer of a cascade.

    Attributes
    ----------
    layer, scheme : str
        What was replaced by what.
    fitted, tuned : Score
        Of the whole model on the validation data, before and after training.
    """

    layer: str
    scheme: str
    fitted: Score
    tuned: Score


@dataclass(frozen=True)
class CascadeResult:
    """The model of a cascade, and how it came about.

    Attributes
    ----------
    model : onnx.ModelProto
        The last stage's.
    stages : tuple of Stage
        From the input to the output.
    macs, macs_new : int or None
        Multiply-adds of all layers, before and after; None where the model does not fix them.
    source : path or None
        The file read.
    file_bytes : FileBytes or None
        Sizes of the files of the original and of the result.
    """

    model: onnx.ModelProto
    stages: tuple[Stage, ...]
    macs: int | None
    macs_new: int | None
    source: Path | None = None
    file_bytes: FileBytes | None = None

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the model atomically; `force` allows to overwrite the original."""
        save_model(self.model, path, source=self.source, force=force)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        stages = [
            {**asdict(s), "fitted": s.fitted.to_dict(), "tuned": s.tuned.to_dict()}
            for s in self.stages
        ]
        sizes = self.file_bytes
        return {
            "stages": stages,
            "macs": self.macs,
            "macs_new": self.macs_new,
            "file_bytes": sizes.before if sizes else None,
            "file_bytes_new": sizes.after if sizes else None,
        }


def cascade(
    model: ModelSource,
    *,
    plan: PlanSource | None = None,
    data: Any,
    val: Any,
    statistics_limit: int | None = None,
    preprocess: Preprocess | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limit: int | None = None,
    part: Part = "both",
    loss: LossName | None = None,
    rate: float | None = None,
    epochs: int = 1,
    batch: int = BATCH,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> CascadeResult:
    """Approximate the layers of a plan bottom-up, as Denton et al. did (2014, section 4.1).

    Each layer is fitted to the outputs that it has in the network tuned so far, by the covariance
    of its inputs there; means and deviations of what follows are corrected; then the network is
    trained until the next layer's turn.

    Parameters
    ----------
    model, plan, preprocess, input_shapes, seed
        As of `compress`.
    data, val : path, str or iterable
        Any sources that `open_dataset` takes: to train on, and held-out ones to choose by.
    statistics_limit : int, optional
        Number of training samples for statistics and corrections, 300 or all by default.
    limit : int, optional
        Number of samples to train on.
    part, loss, rate, epochs, batch
        As of `finetune`, after each layer.
    checkpoint : path, optional
        Folder where the model of each stage is kept, and the training under way, to go on from if
        the run is killed: the outcome is the same. Another run with the same model, data and
        settings takes the stages that its plan begins with from there.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    PlanError
        The plan replaces nothing, or by nodes that cannot be trained; or what `compress` raises.
    OutputError
        The checkpoint cannot be written.
    ModelError, DataError, ProviderError
        As of `compress` and `finetune`.
    """
    require_torch()
    from onnx_lowrank.training.correct import correct
    from onnx_lowrank.training.run import finetune_model

    training = DataOptions(data=data, preprocess=preprocess, limit=limit, seed=seed)
    validation = DataOptions(data=val, preprocess=preprocess, seed=seed)
    schedule = Schedule(
        rate=RATES["adamw"] if rate is None else rate, epochs=epochs, batches=(batch,), seed=seed
    )
    settings = TrainingSettings(part=part, loss=loss, schedule=schedule)
    original = open_model(model)
    layers = find_layers(original, input_shapes=input_shapes, check_values=True)
    decided = resolve_plan(layers, plan)
    if not decided.chosen:
        raise PlanError("no layer is replaced; choose layers and schemes with --layer")
    for name, form in decided.forms.items():
        if form not in (None, STANDARD.name):
            raise PlanError(f"a cascade trains standard ops; leave out @{form} for layer '{name}'")
    inputs = model_inputs(original)
    known = replace(training, limit=None, batch=batch).open(inputs).samples
    most = statistics_limit or (STATISTICS_LIMIT if known is None else min(known, STATISTICS_LIMIT))
    samples = replace(training, limit=most, batch=batch).open(inputs)
    saved = None
    if checkpoint is not None:
        progress("reading the data", 0, len(decided.chosen))
        seen = (samples, training.open(inputs), validation.open(inputs))
        surveys = [Survey.of(each) for each in seen]
        digests = [each for survey in surveys for each in (survey.digest, survey.labels)]
        model_bytes = original.SerializeToString(deterministic=True)
        chosen = (part, loss, rate, epochs, batch, seed, sorted((input_shapes or {}).items()))
        saved = _Checkpoint(checkpoint, key_of("cascade", FORMAT, model_bytes, *digests, *chosen))
    tuned, stages = original, []
    for done, (name, scheme) in enumerate(decided.chosen.items()):

        def show(step: str, _: int, __: int, *, layer: str = name, done: int = done) -> None:
            progress(f"{layer}: {step}", done, len(decided.chosen))

        if saved is not None and (found := saved.enter(f"{name}={scheme.spec}")) is not None:
            tuned, (before, after) = found
            stages.append(Stage(name, scheme.spec, before, after))
            continue
        fitted = None if saved is None else saved.fitted()
        if fitted is None:
            fitted = compress(
                tuned,
                plan=[f"{name}={scheme.spec}"],
                verification=False,
                calibration=data,
                calibration_limit=most,
                preprocess=preprocess,
                input_shapes=input_shapes,
                seed=seed,
                progress=show,
            ).model
            correct(original, fitted, samples, progress=show)
            if saved is not None:
                saved.put_fitted(fitted)
        tuned = open_model(fitted, "the compressed model")
        report = finetune_model(
            original,
            tuned,
            training,
            validation,
            replace(settings, checkpoint=None if saved is None else saved.training),
            progress=show,
        )
        scores = (report.history[0], report.best)
        stages.append(Stage(name, scheme.spec, *scores))
        if saved is not None:
            saved.leave(tuned, scores)
    total = total_cost(plan_costs(layers, decided))
    sizes = FileBytes.of(model, original, tuned)
    return CascadeResult(
        tuned, tuple(stages), total.macs, total.macs_new, source_path(model), sizes
    )


class _Checkpoint:
    """Caches stages on disk, by all that they depend on.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    head : str
        Key of what all stages depend on; that of a stage is made of it and of the layers so far.
    """

    def __init__(self, folder: Path, head: str) -> None:
        self._store, self._key = Cache(folder), head

    def enter(self, rule: str) -> tuple[onnx.ModelProto, tuple[Score, Score]] | None:
        """Go to the next stage; return its model and scores if it is there."""
        from onnx_lowrank.training.train import Score

        def decode(found: Arrays) -> tuple[onnx.ModelProto, tuple[Score, Score]]:
            before, after = (Score(**score) for score in json.loads(str(found["scores"])))
            return _as_model(found), (before, after)

        self._key = key_of(self._key, rule)
        return self._store.arrays(self._key, decode)

    @property
    def training(self) -> Path:
        """File of the stage's training."""
        return self._store.place / f"{self._key}-training.npz"

    def fitted(self) -> onnx.ModelProto | None:
        """Return the stage's model before training, if it is there."""
        return self._store.arrays(key_of(self._key, "fitted"), _as_model)

    def put_fitted(self, model: onnx.ModelProto) -> None:
        self._store.put_arrays(key_of(self._key, "fitted"), {"model": _as_array(model)})

    def leave(self, model: onnx.ModelProto, scores: tuple[Score, Score]) -> None:
        """Cache the stage's end, in place of what it was made from."""
        encoded = np.array(json.dumps([asdict(score) for score in scores]))
        self._store.put_arrays(self._key, {"model": _as_array(model), "scores": encoded})
        self._store.drop_arrays(key_of(self._key, "fitted"))
        with suppress(OSError):  # of a folder that cannot be written to any more
            self.training.unlink(missing_ok=True)


def _as_model(arrays: Arrays) -> onnx.ModelProto:
    try:
        return load_model(arrays["model"].tobytes())
    except ModelError as error:
        raise ValueError(str(error)) from None


def _as_array(model: onnx.ModelProto) -> NDArray[np.uint8]:
    return np.frombuffer(model.SerializeToString(deterministic=True), np.uint8)
