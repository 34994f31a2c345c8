"""What may be computed again, kept on disk by the content of what it was computed from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import rmtree
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from onnx_lowrank.errors import CacheWarning, OutputError
from onnx_lowrank.files import UNREADABLE, add_digest, check_digest, temporary
from onnx_lowrank.json_input import parse_json

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T")


def default_folder() -> Path:
    """Return where results are kept: ``$ONNX_LOWRANK_CACHE``, or the user's cache folder.

    Raises
    ------
    OutputError
        The user has no home folder.
    """
    if chosen := os.environ.get("ONNX_LOWRANK_CACHE"):
        return Path(chosen)
    try:
        # Where there is no home, some versions of platformdirs return "~" and others raise.
        return user_cache_path("onnx_lowrank", appauthor=False).expanduser()
    except RuntimeError:  # neither HOME nor an entry among the users, as in some containers
        raise OutputError(
            "there is no home folder to keep results in; set ONNX_LOWRANK_CACHE to a folder"
        ) from None


def key_of(*parts: object) -> str:
    """Return the key of what `parts` describe: bytes, or anything with a faithful ``str``.

    A key may be a part of another: what is too large for the memory is taken piece by piece.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(f"{len(data)};".encode())
        digest.update(data)
    return digest.hexdigest()


class Cache:
    """Entries of arrays and plain data, one file each; what cannot be read counts as missing.

    Writing is atomic: a killed run leaves whole entries only, and the next one goes on from them.
    Every entry ends with a digest of its content and its name: one that was damaged, exchanged or
    not written by this class is not used, and a `CacheWarning` is given, once for each object.

    Parameters
    ----------
    folder : path
        Made if it is missing.

    Raises
    ------
    OutputError
        The folder cannot be made, or an entry not written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {folder}: {error.strerror}; choose another, "
                "for searches by ONNX_LOWRANK_CACHE"
            ) from None

    @classmethod
    def in_temporary_folder(cls) -> Cache:
        """Return a cache in a temporary folder, which goes with the object."""
        try:
            folder = Path(tempfile.mkdtemp(prefix="onnx_lowrank-"))
        except OSError as error:
            raise OutputError(
                f"cannot make a temporary folder: {error.strerror}; free space"
            ) from None
        cache = cls(folder)
        weakref.finalize(cache, rmtree, folder, ignore_errors=True)
        return cache

    def arrays(self, key: str, decode: Callable[[Arrays], T]) -> T | None:
        """Return what an entry of arrays stands for, or None.

        Parameters
        ----------
        key : str
            Of the entry.
        decode : callable
            Turns the arrays into what they stand for; raises ValueError, TypeError or KeyError for
            arrays of another form.
        """

        def read(file: IO[bytes], size: int) -> T:
            with np.load(file, allow_pickle=False) as data:
                return decode({name: data[name] for name in data.files})

        return self._read(self._path(key, "npz"), read)

    def put_arrays(self, key: str, arrays: Arrays) -> None:
        """Write an entry of arrays."""
        named: dict[str, Any] = dict(arrays)
        self._write(self._path(key, "npz"), lambda file: np.savez(file, **named))

    def data(self, key: str, decode: Callable[[Any], T]) -> T | None:
        """Return what an entry of JSON data stands for, or None; `decode` as of `arrays`."""
        return self._read(
            self._path(key, "json"), lambda file, size: decode(parse_json(file.read(size)))
        )

    def put_data(self, key: str, data: Any) -> None:
        """Write an entry of JSON data."""
        text = json.dumps(data, allow_nan=False).encode()
        self._write(self._path(key, "json"), lambda file: file.write(text))

    def drop_arrays(self, key: str) -> None:
        """Remove an entry of arrays, if there is one."""
        self._path(key, "npz").unlink(missing_ok=True)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f"{key}.{suffix}"

    def _read(self, path: Path, read: Callable[[IO[bytes], int], T]) -> T | None:
        try:
            with path.open("rb") as file:
                return read(file, check_digest(file, path.name))
        except FileNotFoundError:
            return None
        except UNREADABLE:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    "entries kept from earlier runs are damaged or of another version; they are "
                    "computed again",  # of whatever folder: it is said once
                    CacheWarning,
                    stacklevel=3,
                )
            return None

    def _write(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        remedy = (
            "free space or choose another folder, for searches by ONNX_LOWRANK_CACHE; what is kept "
            "is not computed again"
        )
        # Not on the disk by force, which takes its time: what a crash tears apart is missing.
        with temporary(path, remedy) as (file, partial):
            write(file)
            add_digest(file, path.name)
            file.flush()
            os.replace(partial, path)
