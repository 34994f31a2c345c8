"""Checks of class labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import DataError, describe_error

_LARGEST = np.iinfo(np.int64).max


def check_labels(values: Any, count: int, where: str) -> NDArray[np.int64]:
    """Return labels as int64, shape ``(count,)``.

    Parameters
    ----------
    values : array_like
        The labels: whole numbers from 0, shape ``(count,)`` or ``(count, 1)``.
    count : int
        Number of samples.
    where : str
        What to call them in errors.

    Raises
    ------
    DataError
        They are not whole numbers, negative, beyond 64 bits, or of another number than the samples.
    """
    try:
        labels = np.asarray(values)
    except Exception as error:  # ragged lists, or objects that refuse to be an array
        raise DataError(
            f"{where}: labels do not form an array: {describe_error(error)}; give one class each"
        ) from error
    if labels.ndim == 0 and count == 1:
        labels = labels[None]
    if labels.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{where}: labels have shape {list(labels.shape)}, but there are {count} samples; give "
            f"one class each"
        )
    labels = labels.reshape(count)
    if labels.dtype.kind not in "biu" or (labels < 0).any():
        raise DataError(
            f"{where}: labels must be whole numbers from 0, not {_worst(labels)}; convert them"
        )
    if (labels > _LARGEST).any():
        raise DataError(
            f"{where}: label {labels.max()} is larger than {_LARGEST}; number the classes from 0"
        )
    return labels.astype(np.int64)


def _worst(labels: NDArray[Any]) -> str:
    if labels.dtype.kind in "biu":
        return str(labels.min())
    return f"{labels.dtype}"
