"""Reading and writing of models: all is kept, and a crash leaves the old file or the new one."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from onnx_lowrank.errors import ModelError, OutputError
from onnx_lowrank.files import Input, Output, atomic, check_outputs, flush, real_path, temporary
from onnx_lowrank.graph.external import (
    ALIGNMENT,
    data_files,
    external_tensors,
    load_external_data,
    location,
    refer,
    write_data,
)
from onnx_lowrank.graph.without_weights import split_weights, tensor_bytes
from onnx_lowrank.types import ModelSource

# A protobuf message ends at 2 GiB; the structure of the graph gets the rest of it.
SINGLE_FILE_LIMIT = 2**31 - 2**26  # bytes of weights
_NAME_LENGTH = 32  # of the data file's name, which the size of the file beside it depends on
EXTERNAL_FROM = 1024  # bytes of a weight that is worth a place in the data file


def load_model(source: ModelSource) -> onnx.ModelProto:
    """Read a model with its external data.

    Parameters
    ----------
    source : path, bytes or ModelProto
        A ModelProto is copied.

    Raises
    ------
    ModelError
        The source cannot be read, is no ONNX model, or its external data is not there.
    """
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        return _without_external(copy, "the ModelProto given")
    if isinstance(source, bytes):
        return _without_external(_parse(source, "the bytes given"), "the bytes given")
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a device may have no end
            raise ModelError(f"{path} is no regular file; give the path of an ONNX file")
        data = path.read_bytes()
    except IsADirectoryError:
        raise ModelError(f"{path} is a directory; give the path of an ONNX file") from None
    except FileNotFoundError:
        raise ModelError(f"cannot read {path}: there is no such file; check the path") from None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"cannot read {path}: {cause}; give a readable ONNX file") from None
    model = _parse(data, str(path))
    load_external_data(model, path)
    return model


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{what} is empty, not an ONNX model; export or copy it again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{what} is {_guess(data)}") from None
    if not model.HasField("graph"):
        raise ModelError(f"{what} is {_guess(data)}")
    if not model.opset_import and model.ir_version >= 3:  # older IRs have none
        raise ModelError(
            f"{what} names no opset: it is cut short, or no ONNX model; export or copy it again"
        )
    return model


def _guess(data: bytes) -> str:
    """Say what bytes that are no ONNX model may be, and what to do."""
    head = data[:512]
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the model itself; fetch it with 'git lfs pull'"
    if head[4:8] == b"ORTM":
        return "in onnxruntime's own format; give the ONNX file it was made from"
    if len(data) >= 2**31:
        return "beyond the 2 GiB of a protobuf file; export it with external data"
    with suppress(UnicodeDecodeError):
        head[: head.rfind(b"\n") + 1 or None].decode("ascii")
        if b"\0" not in head:
            return "a text file, not an ONNX model; give the binary .onnx file"
    return "cut short, or no ONNX model; export or copy it again"


def _without_external(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    tensor = next(external_tensors(model), None)
    if tensor is not None:
        raise ModelError(
            f"{what} keeps the values of '{tensor.name}' in the file '{location(tensor)}'; "
            "give the model's path, or load its external data first"
        )
    return model


def check_output(
    path: str | os.PathLike[str], *, source: Path | None = None, force: bool = False
) -> None:
    """Raise OutputError if a file cannot be written at `path`.

    Parameters
    ----------
    path : path
        Where a file is to be written.
    source : Path, optional
        The model read: it is not overwritten without `force`, and its data files never are.
    force : bool
        Whether `path` may be `source`.
    """
    output = Output("the output", Path(path), replaces=source, force=force)
    inputs = []
    if source is not None and os.path.exists(source):
        inputs.append(Input("is the input itself", source))
        if os.path.exists(path):
            inputs += [Input(f"holds the weights of {source}", file) for file in data_files(source)]
    check_outputs([output], inputs)


def save_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    source: Path | None = None,
    force: bool = False,
) -> None:
    """Write a model atomically: whatever happens, the path holds the old model or the new one.

    One model gives the same bytes always. Beyond 2 GiB the weights go into a file beside the model,
    whose name comes from its content: it is written first, so that no model ever refers to
    another's weights. A data file of that kind that the model overwritten referred to is removed
    last. A link at the path stays: what it points to is replaced.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    path : path
        Where to write.
    source : Path, optional
        The model read, which is not overwritten without `force`.
    force : bool
        Whether `path` may be `source`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    check_output(path, source=source, force=force)
    target = real_path(path)
    old = _own_data_files(target)
    weights = sum(tensor_bytes(tensor) for tensor in model.graph.initializer)
    data = _serialise(model) if weights <= SINGLE_FILE_LIMIT else None
    if data is not None:
        with atomic(target) as file:
            file.write(data)
        new = None
    else:
        if target.parent != Path(path).parent.resolve():
            raise OutputError(
                f"{path} is a link to another folder, and a model beyond 2 GiB has its weights in "
                f"a file beside it, where none would be found; give {target} itself"
            )
        new = _save_in_two(model, target)
    for each in old:
        if each != new:
            each.unlink(missing_ok=True)


def serialised_size(model: onnx.ModelProto) -> int:
    """Return how many bytes `save_model` writes for a model, external data included.

    Raises
    ------
    OutputError
        What is not in initializers is beyond 2 GiB.
    """
    weights = sum(tensor_bytes(tensor) for tensor in model.graph.initializer)
    data = _serialise(model) if weights <= SINGLE_FILE_LIMIT else None
    if data is not None:
        return len(data)
    light, pairs = split_weights(model, above=EXTERNAL_FROM)
    end = 0
    for tensor, copy in pairs:
        offset = end + -end % ALIGNMENT
        end = offset + tensor_bytes(tensor)
        refer(copy, _NAME_LENGTH * "0", offset)
    data = _serialise(light)
    if data is None:
        raise OutputError(
            "the model cannot be written: what is not in initializers is beyond 2 GiB; "
            "turn large Constant nodes into initializers"
        )
    return len(data) + end


def file_size(path: Path) -> int:
    """Return the bytes of a model's file and of the data files that it refers to."""
    files = {path, *data_files(path)}
    return sum(file.stat().st_size for file in files if file.is_file())


def _serialise(model: onnx.ModelProto) -> bytes | None:
    """Return the bytes of a model, or None if they are beyond 2 GiB."""
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError):
        return None


def _save_in_two(model: onnx.ModelProto, target: Path) -> Path:
    light, pairs = split_weights(model, above=EXTERNAL_FROM)
    with temporary(target) as (file, partial):
        offsets, digest = write_data((tensor for tensor, _ in pairs), file)
        flush(file)
        place = target.with_name(f"{target.name}.{digest[:16]}.data")
        for (_, tensor), offset in zip(pairs, offsets, strict=True):
            refer(tensor, place.name, offset)
        data = _serialise(light)
        if data is None:
            raise OutputError(
                f"cannot write {target}: what is not in initializers is beyond 2 GiB; "
                "turn large Constant nodes into initializers"
            )
        existed = place.exists()
        os.replace(partial, place)
    try:
        with atomic(target) as file:
            file.write(data)
    except BaseException:
        if not existed:
            place.unlink(missing_ok=True)
        raise
    return place


def _own_data_files(target: Path) -> set[Path]:
    """Return the data files of an old model that `save_model` named: others may be shared."""
    name = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.data")
    named = {file for file in target.parent.iterdir() if name.fullmatch(file.name)}
    return named & set(data_files(target)) if named else named
