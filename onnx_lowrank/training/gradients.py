"""The metric of the gradients of a classifier's softmax output.

torch is imported when the gradients are measured, not with this module.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnx_lowrank.data import Dataset
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.training import require_torch


def layer_gradients(
    model: onnx.ModelProto, dataset: Dataset, names: Sequence[str]
) -> dict[str, Mahalanobis]:
    """Return the metric of the gradients of a classifier's softmax output, by layer name.

    Parameters
    ----------
    model : onnx.ModelProto
        A classifier; not changed.
    dataset : Dataset
        Images for its inputs.
    names : sequence of str
        Names of layers, as `find_layers` gives them.

    Raises
    ------
    ProviderError
        torch is not installed.
    ModelError, DataError
        The model is no classifier, or what the data set raises.
    """
    require_torch()
    from onnx_lowrank.training.sensitivity import squared_gradients

    squares = squared_gradients(model, dataset, names)
    return {name: Mahalanobis.from_gradients(value) for name, value in squares.items()}
