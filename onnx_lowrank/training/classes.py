"""Where a classifier has its scores."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import torch

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.measure.verification.classifier import holds_classes


def class_output(outputs: Mapping[str, torch.Tensor], rows: int) -> str:
    """Return the only output that holds scores of classes, of a model's outputs for `rows` images.

    Raises
    ------
    ModelError
        There is none, or more than one.
    """
    found = [
        name
        for name, value in outputs.items()
        if value.is_floating_point() and holds_classes(value.shape, rows)
    ]
    if len(found) != 1:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
        raise ModelError(
            f"the model has {len(outputs)} outputs ({shapes}), of which {len(found)} are one row "
            "of class scores an image; give a classifier with one such output"
        )
    return found[0]


def score_tensor(model: onnx.ModelProto, output: str) -> str:
    """Return the tensor of a classifier's scores before any softmax: that of an output."""
    producers = {name: node for node in model.graph.node for name in node.output[:1]}
    name = output
    while name in producers and is_op(producers[name], "Softmax", "LogSoftmax", "Identity"):
        name = producers[name].input[0]
    return str(name)


def class_scores(scores: torch.Tensor) -> torch.Tensor:
    """Return scores, one row of classes an image, as images x classes.

    Raises
    ------
    ModelError
        They are none.
    """
    if not holds_classes(scores.shape, len(scores)):
        raise ModelError(
            f"the model's output of shape {list(scores.shape)} is not one row of class scores an "
            "image; give a classifier"
        )
    return scores.flatten(1)
