"""Results kept on disk by the content of what they were computed from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import OutputError

Arrays = Mapping[str, NDArray[Any]]


def default_folder() -> Path:
    """Return where results are kept: ``$ONNX_LOWRANK_CACHE``, or the user's cache folder.

    Raises
    ------
    OutputError
        The user has no home folder.
    """
    if chosen := os.environ.get("ONNX_LOWRANK_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "onnx_lowrank"
    except RuntimeError:  # neither HOME nor an entry among the users, as in some containers
        raise OutputError(
            "there is no home folder to keep results in; set ONNX_LOWRANK_CACHE to a folder"
        ) from None


def key_of(*parts: object) -> str:
    """Return the key of what `parts` describe: bytes, or anything with a faithful ``str``."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(f"{len(data)};".encode())
        digest.update(data)
    return digest.hexdigest()


class Store:
    """Entries of arrays and plain data, one file each; what cannot be read counts as missing.

    Writing is atomic: a killed run leaves whole entries only, and the next one goes on from them.

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
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {folder}: {error.strerror}; choose another, "
                "for searches by ONNX_LOWRANK_CACHE"
            ) from None

    def arrays(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return an entry of arrays, or None."""
        try:
            # Opened here: numpy leaves a file that is no archive open.
            with self._path(key, "npz").open("rb") as file:
                data = np.load(file, allow_pickle=False)
                return {name: data[name] for name in data.files}
        except (
            OSError,
            ValueError,
            AttributeError,
            EOFError,
            KeyError,
            zipfile.BadZipFile,
            zlib.error,
        ):
            return None

    def put_arrays(self, key: str, arrays: Arrays) -> None:
        """Write an entry of arrays."""
        path = self._path(key, "npz")
        named: dict[str, Any] = dict(arrays)
        self._write(path, lambda file: np.savez(file, **named))

    def data(self, key: str) -> Any:
        """Return an entry of JSON data, or None."""
        try:
            return json.loads(self._path(key, "json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put_data(self, key: str, data: Any) -> None:
        """Write an entry of JSON data, which is not None."""
        text = json.dumps(data, allow_nan=False).encode()
        self._write(self._path(key, "json"), lambda file: file.write(text))

    def drop_arrays(self, key: str) -> None:
        """Remove an entry of arrays, if there is one."""
        self._path(key, "npz").unlink(missing_ok=True)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f"{key}.{suffix}"

    def _write(self, path: Path, write: Any) -> None:
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as scratch:
                partial = Path(scratch) / path.name
                with partial.open("wb") as file:
                    write(file)
                partial.replace(path)
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror or error}; free space or choose "
                "another folder, for searches by ONNX_LOWRANK_CACHE; what is kept is not computed "
                "again"
            ) from None
