"""`verify`: two models on the same inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.graph.gate import read_model
from onnx_lowrank.measure.score import Score, ScoreSource
from onnx_lowrank.measure.verification import Tolerance, VerifyReport
from onnx_lowrank.measure.verification import verify as verify_models
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import open_engine
from onnx_lowrank.types import ModelSource


def verify(
    original: ModelSource,
    compressed: ModelSource,
    *,
    data: Any = None,
    preprocess: Preprocess | str | None = None,
    labels_from: str | os.PathLike[str] | None = None,
    strict: bool = False,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limit: int | None = None,
    tolerance: Tolerance | None = None,
    seed: int = 0,
    score: ScoreSource | None = None,
    engine: str | None = None,
) -> VerifyReport:
    """Run two models on the same inputs and compare every output.

    Parameters
    ----------
    original, compressed : path, bytes or ModelProto
        The models.
    data : optional
        Any source that `onnx_lowrank.data.open_dataset` takes; seeded random inputs if not given.
    preprocess : Preprocess or str, optional
        How images become inputs.
    labels_from : path or str, optional
        Where labels come from, if not from the source itself, as of `open_dataset`.
    strict : bool
        Whether an unreadable image is an error instead of being skipped.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open, for random inputs.
    limit : int, optional
        Number of samples.
    tolerance : Tolerance, optional
        What passes.
    seed : int
        Seed of random inputs.
    score : str or callable, optional
        A user's figure of merit, ``"module:callable"`` or a callable, as of
        `onnx_lowrank.measure.score.Score`.
    engine : {"cpu", "cuda", "openvino"}, optional
        Where both run: that one must work. Otherwise in onnxruntime on the CPU, and on CUDA where
        that works.

    Raises
    ------
    ModelError, DataError
        If an input is at fault; the message names the remedy.
    ProviderError
        The engine is unknown, missing or does not work.
    """
    samples = DataOptions(
        data=data,
        preprocess=preprocess,
        labels_from=labels_from,
        strict=strict,
        limit=limit,
        input_shapes=input_shapes,
        seed=seed,
    )
    engines = None if engine is None else (open_engine(engine),)
    for each in engines or ():
        each.require()
    reference, other = read_model(original), read_model(compressed)
    dataset = samples.open(model_inputs(reference.model), random=True)
    opened = None if score is None else Score.open(score)
    report = verify_models(
        reference.model,
        other.model,
        dataset,
        engines=engines,
        tolerance=tolerance,
        score=opened,
    )
    repaired = [f"the original: {note}" for note in reference.notes]
    repaired += [f"the compressed model: {note}" for note in other.notes]
    return replace(report, notes=(*repaired, *report.notes))
