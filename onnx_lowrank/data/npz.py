"""Samples from the arrays of an .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from onnx_lowrank.data.dataset import Sample
from onnx_lowrank.data.labels import check_labels
from onnx_lowrank.errors import DataError, suggest
from onnx_lowrank.runtime import TensorInfo


@dataclass(frozen=True)
class _Member:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


class NpzFile:
    """Arrays by input name, one row for each sample, read row by row; pickled arrays are refused.

    Parameters
    ----------
    path : Path
        The file. An array called ``labels`` holds the classes, unless an input has that name. With
        a single input, the only other array is its data whatever it is called.
    inputs : sequence of TensorInfo
        The model's inputs.
    batched : mapping of str to bool
        Which of them have one row per sample; the others are fed whole.
    labels_from : str or None
        Name of the array of labels; ``"none"`` ignores ``labels``.
    limit : int or None
        With fewer samples wanted than there are, a random subset is taken, in the file's order.
    seed : int
        Seed of the subset.

    Raises
    ------
    DataError
        The file is unreadable, an array is missing, unknown, or of another length than the others.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[TensorInfo],
        batched: Mapping[str, bool],
        *,
        labels_from: str | None,
        limit: int | None,
        seed: int,
    ) -> None:
        self.skipped: list[str] = []
        self._path = path
        members = _members(path)
        names = [info.name for info in inputs]
        label = _label_name(path, members, names, labels_from)
        ignored = "labels" if labels_from == "none" and "labels" not in names else None
        data = {n: m for n, m in members.items() if n not in (label, ignored)}
        if len(names) == 1 and len(data) == 1:
            data = {names[0]: next(iter(data.values()))}
        for name in names:
            if name not in data:
                raise DataError(
                    f"{path} has no array '{name}' for that input{suggest(name, data)}; "
                    f"it has {', '.join(data) or 'none'}"
                )
        for name in data:
            if name not in names:
                raise DataError(
                    f"array '{name}' in {path} is neither an input ({', '.join(names)}) nor the "
                    f"labels; "
                    "remove it, or name the array of labels"
                )
        self._rows = {n: data[n] for n in names if batched[n]}
        self._constants = {n: _whole(path, data[n]) for n in names if not batched[n]}
        for member in self._rows.values():
            if not member.shape:
                raise DataError(
                    f"array '{member.name}' in {path} has no axis of samples; add one in front"
                )
        lengths = {m.name: m.shape[0] for m in self._rows.values()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"'{n}' {length}" for n, length in lengths.items())
            raise DataError(f"the arrays in {path} differ in their number of samples: {told}")
        count = next(iter(lengths.values()), 1)
        self._labels = (
            None
            if label is None
            else check_labels(_whole(path, members[label]), count, f"array '{label}' in {path}")
        )
        self._chosen = np.arange(count)
        if limit is not None and limit < count:
            self._chosen = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
        self._count = count

    @property
    def samples(self) -> int:
        """Number of samples in the file."""
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the file's order; raise DataError where the file is damaged."""
        with ExitStack() as stack:
            readers = {
                name: _rows(self._path, m, self._chosen, stack) for name, m in self._rows.items()
            }
            for row in self._chosen:
                feeds = {name: next(reader) for name, reader in readers.items()}
                label = None if self._labels is None else int(self._labels[row])
                yield Sample(
                    {**feeds, **self._constants}, label, f"{self._path.name}, sample {row}"
                )


def _label_name(
    path: Path, members: Mapping[str, _Member], inputs: Sequence[str], labels_from: str | None
) -> str | None:
    if labels_from == "none":
        return None
    if labels_from is None:
        return "labels" if "labels" in members and "labels" not in inputs else None
    if labels_from not in members:
        raise DataError(
            f"{path} has no array '{labels_from}' of labels{suggest(labels_from, members)}"
        )
    return labels_from


def _members(path: Path) -> dict[str, _Member]:
    """Read the headers of all arrays."""
    members = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as file:
                    shape, fortran, dtype = _header(file)
                name = entry.removesuffix(".npy")
                if dtype.hasobject:
                    raise DataError(
                        f"array '{name}' in {path} holds Python objects, which are not loaded; "
                        "save numbers or fixed-width strings"
                    )
                members[name] = _Member(name, shape, dtype, fortran and len(shape) > 1)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}; write it with numpy.savez") from error
    return members


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version} is not supported")
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _whole(path: Path, member: _Member) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[member.name])
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read array '{member.name}' in {path}: {error}; write it again"
        ) from error


def _rows(
    path: Path, member: _Member, chosen: NDArray[np.intp], stack: ExitStack
) -> Iterator[NDArray[Any]]:
    """Yield chosen rows of an array, holding one at a time unless it is in Fortran order."""
    if member.fortran:
        array = _whole(path, member)
        yield from (array[row] for row in chosen)
        return
    shape = member.shape[1:]
    size = member.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = archive.namelist()
        entry = member.name if member.name in names else f"{member.name}.npy"
        file = stack.enter_context(archive.open(entry))
        _header(file)
        start = file.tell()
        for row in chosen:
            file.seek(start + int(row) * size)
            data = file.read(size)
            if len(data) != size:
                raise EOFError(f"it ends within sample {row}")
            yield np.frombuffer(data, member.dtype).reshape(shape)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read array '{member.name}' in {path}: {error}; write it again"
        ) from error
