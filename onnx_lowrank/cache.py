"""What may be computed again, kept on disk by the content of what it was computed from."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
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

_DAMAGED = (
    "entries kept from earlier runs are damaged or of another version; they are computed again"
)
_UNKEPT = (
    "the folder of kept results cannot be written to, being full, read-only or out of reach: this "
    "run goes on, and keeps nothing more for later ones; free space there or choose another "
    "folder, for searches by ONNX_LOWRANK_CACHE"
)
_REMEDY = (
    "free space or choose other folders by TMPDIR and, for searches, ONNX_LOWRANK_CACHE; what is "
    "kept is not computed again"
)


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
    not written by this class is not used. Where the folder cannot be written to, what follows is
    kept in a temporary one, which goes with this object. Of both a `CacheWarning` is given, once
    for each object, and none by its copies in other processes.

    Parameters
    ----------
    folder : path
        Made if it is missing.

    Attributes
    ----------
    folder : path
        As given.
    place : path
        Where entries are written: the folder, or the temporary one.

    Raises
    ------
    OutputError
        An entry can be written to neither.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = self.place = folder
        self._said: set[str] = set()
        # Named at once, so that other processes write to the same.
        self._spare = f"onnx_lowrank-{secrets.token_hex(8)}"
        weakref.finalize(self, _remove, self._spare)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process is made of, which says nothing."""
        return {**vars(self), "_said": {_DAMAGED, _UNKEPT}}

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

        return self._read(f"{key}.npz", read)

    def put_arrays(self, key: str, arrays: Arrays) -> None:
        """Write an entry of arrays."""
        named: dict[str, Any] = dict(arrays)
        self._write(f"{key}.npz", lambda file: np.savez(file, **named))

    def data(self, key: str, decode: Callable[[Any], T]) -> T | None:
        """Return what an entry of JSON data stands for, or None; `decode` as of `arrays`."""
        return self._read(f"{key}.json", lambda file, size: decode(parse_json(file.read(size))))

    def put_data(self, key: str, data: Any) -> None:
        """Write an entry of JSON data."""
        text = json.dumps(data, allow_nan=False).encode()
        self._write(f"{key}.json", lambda file: file.write(text))

    def drop_arrays(self, key: str) -> None:
        """Remove an entry of arrays, if there is one."""
        for folder in self._folders():
            with suppress(OSError):  # it is of no use any more, and does no harm
                (folder / f"{key}.npz").unlink()

    def _folders(self) -> Iterator[Path]:
        yield self.folder
        with suppress(OSError):  # there is no place for temporary files
            if (spare := _temporary(self._spare)).is_dir():
                self._warn(_UNKEPT)
                yield spare

    def _warn(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            # Of whatever folder: the command line says the same only once.
            warnings.warn(text, CacheWarning, stacklevel=4)

    def _read(self, name: str, read: Callable[[IO[bytes], int], T]) -> T | None:
        for folder in self._folders():
            try:
                with (folder / name).open("rb") as file:
                    return read(file, check_digest(file, name))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except UNREADABLE:
                self._warn(_DAMAGED)
        return None

    def _write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        try:
            _write_in(self.place, name, write)
            return
        except OutputError as error:
            failed = error
        try:
            self.place = _temporary(self._spare)
            self.place.mkdir(mode=0o700, exist_ok=True)
            _write_in(self.place, name, write)
        except (OSError, OutputError):
            raise failed from None
        self._warn(_UNKEPT)


def _temporary(name: str) -> Path:
    return Path(tempfile.gettempdir(), name)


def _remove(name: str) -> None:
    with suppress(OSError):
        rmtree(_temporary(name), ignore_errors=True)


def _write_in(folder: Path, name: str, write: Callable[[IO[bytes]], object]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}; {_REMEDY}") from None
    # Not on the disk by force, which takes its time: what a crash tears apart is missing.
    with temporary(folder / name, _REMEDY) as (file, partial):
        write(file)
        add_digest(file, name)
        file.flush()
        os.replace(partial, folder / name)
