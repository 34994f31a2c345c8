"""External data: the values of tensors in files beside the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import onnx
from onnx import TensorProto, numpy_helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.validate import check_tensor
from onnx_lowrank.graph.without_weights import all_tensors, tensor_bytes

ALIGNMENT = 4096  # a page: what a runtime needs to map a tensor instead of copying it


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors whose values are in other files."""
    for tensor in all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def location(tensor: onnx.TensorProto) -> str:
    """Return the name of the file that holds a tensor's values, relative to the model's folder."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read all external data of the model at `path` into it.

    Files are looked for beside `path`, and beside the file that it links to.

    Raises
    ------
    ModelError
        A data file is missing, too short, or outside the model's folder.
    """
    folders = tuple(dict.fromkeys((path.parent.resolve(), path.resolve().parent)))
    for tensor in external_tensors(model):
        check_tensor(tensor)
        tensor.raw_data = _read(tensor, folders, path)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _read(tensor: onnx.TensorProto, folders: tuple[Path, ...], path: Path) -> bytes:
    name = location(tensor)
    if not _is_file_name(name) or tensor.data_type == TensorProto.STRING:
        raise ModelError(
            f"{path} keeps the values of '{tensor.name}' in {name!r:.80}, which cannot be; "
            "export it again"
        )
    found = [file for folder in folders if (file := (folder / name).resolve()).is_file()]
    # Outside is checked after links are followed, so that neither ".." nor a link leads out.
    inside = [file for file in found if any(file.is_relative_to(folder) for folder in folders)]
    if not inside:
        if found or not all((f / name).resolve().is_relative_to(f) for f in folders):
            raise ModelError(
                f"{path} keeps the values of '{tensor.name}' in '{name}', outside its own folder; "
                "move that file beside the model and export it again"
            )
        raise ModelError(
            f"{path} keeps the values of '{tensor.name}' in '{name}', which is not there; "
            "copy that file beside the model too"
        )
    entries = {entry.key: entry.value for entry in tensor.external_data}
    needed = tensor_bytes(tensor)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or needed)
    except ValueError:
        offset = length = -1
    if offset < 0 or length != needed:
        raise ModelError(
            f"{path} describes the external data of '{tensor.name}' wrongly (offset "
            f"{entries.get('offset')!r:.40}, length {entries.get('length')!r:.40}, {needed} bytes "
            "needed); export it again"
        )
    try:
        there = max(inside[0].stat().st_size - offset, 0)
        if there < needed:  # before memory is taken, or a place sought that no file has
            raise ModelError(
                f"{inside[0]} is cut short: '{tensor.name}' needs {needed} bytes from {offset} on, "
                f"{there} are there; copy it again"
            )
        with inside[0].open("rb") as stream:
            stream.seek(offset)
            return stream.read(needed)
    except OSError as error:
        raise ModelError(f"cannot read {inside[0]}: {error.strerror}; check its rights") from None


def _is_file_name(name: str) -> bool:
    """Whether a path may be one of a file: some raise other errors than that there is none."""
    text = isinstance(name, str) and "\0" not in name
    return text and len(name) < 4096 and all(len(n.encode()) < 256 for n in Path(name).parts)


def write_data(tensors: Iterable[onnx.TensorProto], file: IO[bytes]) -> tuple[list[int], str]:
    """Write the values of tensors one after the other.

    Returns
    -------
    offsets : list of int
        Where each tensor begins.
    digest : str
        SHA-256 of all that was written, hexadecimal.
    """
    digest = hashlib.sha256()
    offsets = []
    position = 0
    for tensor in tensors:
        padding = b"\0" * (-position % ALIGNMENT)
        data = tensor.raw_data if tensor.HasField("raw_data") else _raw(tensor)
        for piece in (padding, data):
            file.write(piece)
            digest.update(piece)
        offsets.append(position + len(padding))
        position += len(padding) + len(data)
    return offsets, digest.hexdigest()


def _raw(tensor: onnx.TensorProto) -> bytes:
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def refer(tensor: onnx.TensorProto, name: str, offset: int) -> None:
    """Let a tensor without data refer to a file beside its model."""
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", offset), ("length", tensor_bytes(tensor))):
        tensor.external_data.add(key=key, value=str(value))


def data_files(path: Path) -> tuple[Path, ...]:
    """Return the data files that the model at `path` refers to; none if it is no model."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception:  # whatever is there is no model with data files
        return ()
    names = dict.fromkeys(location(tensor) for tensor in external_tensors(model))
    folders = dict.fromkeys((path.parent, path.resolve().parent))
    named = [name for name in names if name and _is_file_name(name)]
    return tuple(folder / name for folder in folders for name in named)
