"""The last boundary of what reads a model that somebody else made."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Error  # type: ignore[import-untyped]
from onnx import checker, shape_inference

from onnx_lowrank.errors import ModelError

# What Python, numpy, protobuf and onnx raise on contents that no check expects. Errors of this
# package are of none of these classes and pass.
_UNEXPECTED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    Error,
    checker.ValidationError,
    shape_inference.InferenceError,
)
LONGEST = 300  # characters of an explanation


@contextmanager
def reading(step: str) -> Iterator[None]:
    """Turn what a broken model makes readers raise into a ModelError; a decorator too.

    Parameters
    ----------
    step : str
        What is done, as the end of "the model cannot be read: ...".

    Raises
    ------
    ModelError
        In place of any other exception that contents of a model may cause.
    """
    try:
        yield
    except _UNEXPECTED as error:
        cause = " ".join(str(error).split())[:LONGEST]
        raise ModelError(
            f"the model cannot be read: {step} failed with {type(error).__name__}"
            f"{f' ({cause})' if cause else ''}; export it again"
        ) from error
