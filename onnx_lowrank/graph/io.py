"""Reading and writing of models: everything is kept, and a crash leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnx_lowrank.errors import ModelError, OutputError

ModelSource = "str | os.PathLike[str] | bytes | onnx.ModelProto"
LIMIT = 2**31 - 1  # bytes of a protobuf message


def load_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Read a model with its external data."""
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        return copy
    if isinstance(source, bytes):
        return _parse(source, "the bytes given")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; give the path of an ONNX file") from None
    model = _parse(data, str(path))
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ModelError(f"cannot read the external data of {path}: {error}") from None
    return model


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{what} is no ONNX model, or is cut short; export or copy it again") from None
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{what} is no ONNX model: it has no graph; give an ONNX file")
    return model


def check_output(path: str | os.PathLike[str], *, source: Path | None = None, force: bool = False) -> None:
    """Raise OutputError if a file cannot be written here."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the folder {path.parent} cannot be written to; choose another")
    if source is not None and not force and path.exists() and path.samefile(source):
        raise OutputError(f"{path} is the input itself; choose another name, or give --force")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    _write(path, text.encode())


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str], *, source: Path | None = None, force: bool = False) -> None:
    """Write a model atomically."""
    check_output(path, source=source, force=force)
    _write(Path(path), model.SerializeToString(deterministic=True))


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}; free space or choose another place") from None
