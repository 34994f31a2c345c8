"""Types that many modules share, each defined here only."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # importing the package must stay cheap
    import onnx

Array = NDArray[np.float64]
AnyArray = NDArray[Any]

Feeds = Mapping[str, AnyArray]
"""Inputs of a model by name."""

Progress = Callable[[str, int, int], None]
"""Called with a sentence, the number of steps done, and their total."""

ModelSource: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"
"""A file, its content, or a model."""


def silent(step: str, done: int, total: int) -> None:
    """Show nothing: the `Progress` of who wants none."""
