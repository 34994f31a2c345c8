"""Arrays in the members of a zip archive, read without trusting what it says of itself."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import DataError, describe_error
from onnx_lowrank.runtime.capacity import check_size

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 64 * 1024  # bytes: numpy writes 128, and more only for types with fields
_TYPE = re.compile(r"[<>=|]?([?bBhHiIlLqQefdgFDGO]|[biufcSUVO]\d{1,9})")
_LONG = re.compile(r"(?<=\d)L\b")  # of integers as Python 2 wrote them
_DEFLATE_RATIO = 1032  # the most that the format can reach
_CHUNK = 2**20


@dataclass(frozen=True)
class Member:
    """An array in an archive, as its header describes it.

    Attributes
    ----------
    name : str
        Its name, without ``.npy``.
    entry : ZipInfo
        Its place in the archive.
    shape : tuple of int
        Its sizes.
    dtype : dtype
        Its type: neither Python objects nor fields.
    fortran : bool
        Whether its first axis changes fastest.
    start : int
        Bytes of the header.
    """

    name: str
    entry: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def row_size(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * prod(self.shape[1:])


class Archive:
    """The entries of a zip file, by name; nothing of it is ever extracted or unpickled.

    Raises
    ------
    DataError
        The file is no zip archive, or two entries have one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, zipfile.ZipInfo] = {}
        with _read_errors(str(path), "write it with numpy.savez"), zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in self._entries:
                    raise DataError(f"{path} holds array '{name}' twice; write it again")
                self._entries[name] = entry
            self._size = path.stat().st_size

    @property
    def names(self) -> list[str]:
        """The names of all arrays, in the file's order."""
        return list(self._entries)

    def member(self, name: str) -> Member:
        """Read the header of an array.

        Raises
        ------
        DataError
            It is no array of numbers or text, or the archive cannot hold what it declares.
        """
        entry = self._entries[name]
        with self._opened(name, entry) as file:
            shape, fortran, dtype, start = _header(file)
            self._check_entry(entry)
        if dtype.hasobject:
            raise DataError(
                f"array '{name}' in {self.path} holds Python objects, which are not loaded; "
                "save numbers or fixed-width strings"
            )
        member = Member(name, entry, shape, dtype, fortran and len(shape) > 1, start)
        self._check_length(member)
        return member

    def whole(self, member: Member) -> NDArray[Any]:
        """Read an array; memory grows with what is there, not with what is declared."""
        what = f"array '{member.name}' in {self.path}"
        itemsize = member.dtype.itemsize
        check_size(member.shape, itemsize, what, remedy="save fewer samples, in C order")
        with self._opened(member.name, member.entry) as file:
            file.seek(member.start)
            data = np.frombuffer(_read(file, itemsize * prod(member.shape)), member.dtype)
            return data.reshape(member.shape, order="F" if member.fortran else "C")

    def rows(self, member: Member, chosen: Iterable[int]) -> Generator[NDArray[Any], None, None]:
        """Yield chosen rows of an array, holding one at a time unless it is in Fortran order."""
        if member.fortran:
            array = self.whole(member)
            yield from (array[row] for row in chosen)
            return
        shape = member.shape[1:]
        what = f"a sample of array '{member.name}' in {self.path}"
        check_size(shape, member.dtype.itemsize, what, remedy="save smaller samples")
        with self._opened(member.name, member.entry) as file:
            for row in chosen:
                file.seek(member.start + row * member.row_size)
                try:
                    data = _read(file, member.row_size)
                except EOFError:
                    raise EOFError(f"it ends within sample {row}") from None
                yield np.frombuffer(data, member.dtype).reshape(shape)

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        """Raise ValueError where an entry cannot be as long as it says."""
        most = {
            zipfile.ZIP_STORED: entry.compress_size,
            # A block of a few bytes stands for nothing.
            zipfile.ZIP_DEFLATED: _DEFLATE_RATIO * entry.compress_size,
        }.get(entry.compress_type, entry.file_size)
        if entry.compress_size > self._size or entry.file_size > most:
            raise ValueError("it is shorter than its directory says")

    def _check_length(self, member: Member) -> None:
        there = member.entry.file_size - member.start
        if 0 in member.shape[1:]:
            raise DataError(
                f"array '{member.name}' in {self.path} has samples of no elements; save others"
            )
        if there < member.dtype.itemsize * prod(member.shape):
            raise DataError(
                f"cannot read array '{member.name}' in {self.path}: it ends within sample "
                f"{there // member.row_size}; write it again"
            )

    @contextmanager
    def _opened(self, name: str, entry: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        with (
            _read_errors(f"array '{name}' in {self.path}", "write it again with numpy.savez"),
            zipfile.ZipFile(self.path) as archive,
            archive.open(entry) as file,
        ):
            yield file


@contextmanager
def _read_errors(what: str, remedy: str) -> Iterator[None]:
    """Make a DataError of whatever fails in reading."""
    try:
        yield
    except DataError:
        raise
    # Damaged archives make zipfile and its decompressors raise almost anything: NotImplementedError
    # for an unknown compression, RuntimeError for encryption, struct.error, zlib.error, LZMAError.
    except Exception as error:
        reason = str(error) or describe_error(error)
        raise DataError(f"cannot read {what}: {reason}; {remedy}") from error


def _read(file: IO[bytes], size: int) -> bytearray:
    """Read exactly so many bytes; raise EOFError where there are fewer."""
    data = bytearray()
    while len(data) < size and (chunk := file.read(min(_CHUNK, size - len(data)))):
        data += chunk
    if len(data) != size:
        raise EOFError("it ends early")
    return data


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the header of an array: shape, whether in Fortran order, type, and its own length.

    numpy's reader is not used: it takes the length of a header as it is given, and evaluates types
    with fields.
    """
    if _read(file, len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no array")
    major, minor = _read(file, 2)
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"array format {major}.{minor} is not supported")
    width = 2 if major == 1 else 4
    length = int.from_bytes(_read(file, width), "little")
    if length > _MOST_HEADER:
        raise ValueError(f"its header of {length} bytes is too long")
    text = _read(file, length).decode("utf-8" if major == 3 else "latin1")
    try:
        header = ast.literal_eval(_LONG.sub("", text.strip()))
    except Exception:  # SyntaxError, RecursionError, MemoryError: it says nothing to the user
        raise ValueError("its header does not read") from None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header does not say type, order and shape")
    shape, fortran = header["shape"], header["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise ValueError("its shape is no tuple of sizes")
    if not isinstance(fortran, bool):
        raise ValueError("its order is neither true nor false")
    return shape, fortran, _dtype(header["descr"]), len(_MAGIC) + 2 + width + length


def _dtype(descr: object) -> np.dtype[Any]:
    if not isinstance(descr, str) or not _TYPE.fullmatch(descr):
        raise ValueError("its type is none of numbers or text; save one array for each input")
    dtype = np.dtype(descr)
    if dtype.itemsize == 0:
        raise ValueError("its elements have no bytes")
    return dtype
