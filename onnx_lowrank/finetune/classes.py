"""Where a classifier has its scores."""

from __future__ import annotations

import onnx
import torch

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.ops import is_op


def score_tensor(model: onnx.ModelProto) -> str:
    """Return the tensor of a classifier's scores before any softmax: that of its only output.

    Raises
    ------
    ModelError
        The model has several outputs.
    """
    names = [value.name for value in model.graph.output]
    if len(names) != 1:
        raise ModelError(
            f"the model has {len(names)} outputs ({', '.join(names)}), but scores of classes are "
            "wanted; give a classifier with one output"
        )
    producers = {name: node for node in model.graph.node for name in node.output[:1]}
    name = names[0]
    while name in producers and is_op(producers[name], "Softmax", "LogSoftmax", "Identity"):
        name = producers[name].input[0]
    return str(name)


def class_scores(scores: torch.Tensor) -> torch.Tensor:
    """Return scores as images x classes.

    Raises
    ------
    ModelError
        They are not one row of classes an image.
    """
    rows = scores.flatten(1) if scores.dim() > 1 else scores
    if rows.dim() != 2 or rows.shape[1] != scores.shape[1] or rows.shape[1] < 2:
        raise ModelError(
            f"the model's output of shape {list(scores.shape)} is not one row of class scores an "
            "image; give a classifier"
        )
    return rows
