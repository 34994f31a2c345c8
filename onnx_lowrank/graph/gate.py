"""The gate: every command reads a user's model here, and all of them accept the same models."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import onnx

from onnx_lowrank.errors import ModelError, RepairWarning
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.guard import reading
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.repair import (
    drop_inner_shapes,
    drop_stale_shapes,
    drop_unused_functions,
    repair,
)
from onnx_lowrank.graph.validate import check_convs, validate
from onnx_lowrank.types import ModelSource


@dataclass(frozen=True, eq=False)
class CheckedModel:
    """A model that is valid ONNX.

    Attributes
    ----------
    model : onnx.ModelProto
        A copy, with its external data loaded.
    notes : tuple of str
        What was repaired, a sentence each.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...] = ()


def read_model(source: ModelSource) -> CheckedModel:
    """Read a model, repair what onnxruntime would forgive, and check it.

    Parameters
    ----------
    source : path, bytes or ModelProto
        A ModelProto is not changed.

    Raises
    ------
    ModelError
        The source cannot be read, or is no valid model; the message names where.
    """
    with reading("checking it"):
        model = load_model(source)
        validate(model)
        notes = repair(model)
        notes += _check_dropping(model)
        check_convs(model)
    return CheckedModel(model, tuple(notes))


def open_model(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, name: str = ""
) -> onnx.ModelProto:
    """Read a model by `read_model`, where the result has no place for notes: they are warnings.

    Parameters
    ----------
    source : path, bytes or ModelProto
        A ModelProto is not changed.
    name : str
        What the notes call the model, where there are several.

    Raises
    ------
    ModelError
        As of `read_model`.

    Warns
    -----
    RepairWarning
        For each thing that was repaired.
    """
    found = read_model(source)
    for note in found.notes:
        warnings.warn(f"{name}: {note}" if name else note, RepairWarning, stacklevel=3)
    return found.model


def _check_dropping(model: onnx.ModelProto) -> list[str]:
    """Check a model; drop what nothing is computed by where only that makes it invalid."""
    try:
        check_model(model)
    except ModelError as error:
        notes = []
        for drop in (drop_stale_shapes, drop_inner_shapes, drop_unused_functions):
            if not (found := drop(model)):
                continue
            notes += found
            try:
                check_model(model)
            except ModelError:
                continue
            return notes
        raise error
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return []
    return drop_stale_shapes(model)
