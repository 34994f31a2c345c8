"""A model as a runtime reads it, what messages call it, and what a runtime says in one line."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_lowrank.errors import ModelError

if TYPE_CHECKING:
    import onnx

    Model = onnx.ModelProto | str | os.PathLike[str]


@contextlib.contextmanager
def readable(model: Model) -> Iterator[str | bytes]:
    """Give the path of a model's file, or its bytes; beyond protobuf's 2 GB a temporary file.

    Raises
    ------
    ModelError
        There is no file at the path.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if not path.is_file():
            raise ModelError(f"no model at {path}; check the path")
        yield str(path)
        return
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        data = model.SerializeToString()
    except (EncodeError, ValueError):  # beyond 2 GB
        from onnx_lowrank.graph.io import save_model

        # A runtime has read all weights, or mapped their file, once the model is loaded.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            yield str(path)
        return
    yield data


def model_name(model: Any) -> str:
    """Return what a message calls a model: its path, or the name of its graph."""
    if isinstance(model, str | os.PathLike):
        return str(model)
    name = str(model.graph.name)
    return f"model '{name}'" if name else "the model"


def one_line(error: BaseException | str) -> str:
    """Return a message on one line of at most 300 characters, without onnxruntime's own prefix."""
    line = " ".join(str(error).split()) or type(error).__name__
    if line.startswith("[ONNXRuntimeError]"):
        line = line.split(" : ", 3)[-1]
    return line[:300].rstrip(" .")
