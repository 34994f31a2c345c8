"""The one rule of what a classifier's output is, and of what its scores say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.measure.verification.sqnr import sqnr_of
from onnx_lowrank.types import Array

_SMALLEST = 1e-30  # probability below which float32 says nothing of a logit


def holds_classes(shape: Sequence[int], rows: int) -> bool:
    """Whether an output of this shape is one row of scores of classes for each of `rows` samples.

    That is ``[N, classes]`` with any number of further axes of length 1: exactly one axis behind
    the samples is longer than 1.
    """
    wide = sum(size != 1 for size in shape[1:])
    return len(shape) >= 2 and shape[0] == rows and wide == 1 and 0 not in shape


def class_outputs(outputs: Mapping[str, NDArray[Any]], samples: int) -> list[str]:
    """Return the names of the float outputs of a batch that hold scores of classes."""
    return [
        name
        for name, value in outputs.items()
        if value.dtype.kind == "f" and holds_classes(value.shape, samples)
    ]


def are_probabilities(scores: NDArray[Any]) -> bool:
    """Whether the scores of every sample, ``(N, ...)``, are probabilities."""
    values = np.asarray(scores, np.float64).reshape(len(scores), -1)
    return bool(values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3))


def centred_logits(scores: NDArray[Any], *, probabilities: bool) -> Array:
    """Return logits less their mean over the classes, ``(N, classes)``: of probabilities the logs.

    A constant added to all scores of a sample changes no class.
    """
    values = np.asarray(scores, np.float64).reshape(len(scores), -1)
    if probabilities:
        values = np.log(np.maximum(values, _SMALLEST))
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def common_share(classes: NDArray[np.int64]) -> float:
    """Return the share of the most frequent class: what a model with one answer agrees with."""
    return float(np.bincount(classes).max() / len(classes))


def varying_db(ours: Array, theirs: Array) -> float:
    """Return how well is kept what centred logits, ``(N, classes)``, say of single samples, in dB.

    ``10 log10(sum |a - mean(a)|^2 / sum |b - a|^2)``, the mean over the samples: 0 dB for a model
    that always answers with that mean.
    """
    return sqnr_of(
        float(np.square(ours - ours.mean(axis=0)).sum()), float(np.square(theirs - ours).sum())
    )
