"""Where results go: never over an input or another output, and either whole or not at all.

Links are written through: what they point to is replaced, and the link stays. What is no regular
file (a device, a stream, a pipe) is refused.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from onnx_lowrank.errors import OutputError

# What reading a damaged file raises, or decoding one of another form.
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error, RecursionError),
)
_BLOCK = 1 << 20
_DIGEST = 64  # characters at the end of a file, of all before them and of the file's name
_MOST_LINKS = 40  # as of Linux
_STREAMS = (("dev",), ("proc",))  # of what is there, only /dev/shm holds files
_IMAGES = {".jpg", ".jpeg", ".png"}  # what a folder of data is read for


@dataclass(frozen=True)
class Output:
    """A place that is written to.

    Attributes
    ----------
    name : str
        What a message calls it, such as an option.
    path : Path
        A file, or a folder.
    writes : tuple of str
        Of a folder: patterns of the names in it that are written; none for a file.
    replaces : Path or None
        The input that `force` allows to overwrite.
    force : bool
        Whether it may be.
    """

    name: str
    path: Path
    writes: tuple[str, ...] = ()
    replaces: Path | None = None
    force: bool = False

    def owns(self, file: Path) -> bool:
        """Whether a resolved path is one that a folder's output is written to."""
        folder = _resolved(self.path)
        if not self.writes or not file.is_relative_to(folder) or file == folder:
            return False
        first = file.relative_to(folder).parts[0]
        return any(fnmatchcase(first, pattern) for pattern in self.writes)


@dataclass(frozen=True)
class Input:
    """A file or folder that is read; `what` is what it is to an output on it, as a clause."""

    what: str
    path: Path


def check_outputs(outputs: Sequence[Output], inputs: Sequence[Input]) -> None:
    """Raise OutputError where an output cannot be written, or is an input or another output.

    Files are the same where their paths are after links were followed, or where the file system
    says so, as of hard links.
    """
    for output in outputs:
        if output.writes:
            _check_folder(output)
        else:
            check_file(output.path)
    for index, output in enumerate(outputs):
        for other in outputs[index + 1 :]:
            _check_pair(output, other)
        for source in inputs:
            with suppress(FileNotFoundError, NotADirectoryError):  # reading it will say so
                _check_input(output, source)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise OutputError if a file cannot be written at `path`."""
    path = Path(path)
    real = real_path(path)
    try:
        if not path.name or real.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file")
        folder = real.parent
        if not folder.is_dir():
            raise OutputError(f"there is no folder {folder}; make it first")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"the folder {folder} cannot be written to; choose another")
        if real.exists() and not real.is_file():
            raise OutputError(f"{path} is no regular file; choose another name")
    except OSError as error:
        raise _unusable(path, error) from None


def source_path(source: object) -> Path | None:
    """Return the file that a model is read from, or None for its content or a model in memory."""
    return Path(source) if isinstance(source, str | os.PathLike) else None


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return the file that is written where `path` is given: what a link points to.

    Raises
    ------
    OutputError
        That is a device or a stream, or the links lead nowhere.
    """
    path = Path(path)
    if "\0" in str(path):  # of which pathlib says that it is not there
        raise _unusable(path, ValueError("no name holds a zero byte"))
    try:
        found = path
        for _ in range(_MOST_LINKS):
            found = found.parent.resolve() / found.name
            _refuse_streams(path, found)
            if not found.is_symlink():
                return found
            found = found.parent / found.readlink()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unusable(path, error) from None
    raise OutputError(f"{path} is a link in a circle; choose another name")


def _refuse_streams(path: Path, found: Path) -> None:
    parts = found.parts[1:]
    if parts[:1] in _STREAMS and parts[:2] != ("dev", "shm"):
        raise OutputError(
            f"{path} is a device or a stream, and cannot be written to; choose another name"
        )


def _unusable(path: Path, error: Exception) -> OutputError:
    cause = error.strerror if isinstance(error, OSError) else error
    return OutputError(f"cannot write {str(path)[:200]!r}: {cause}; choose another name")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unusable(path, error) from None


def _check_folder(output: Output) -> None:
    real_path(output.path)  # no stream on the way
    folder = _resolved(output.path)
    _refuse_streams(output.path, folder)
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir():
            raise OutputError(f"{there} is no folder; choose another for {output.name}")
        if not os.access(there, os.W_OK):
            raise OutputError(f"the folder {there} cannot be written to; choose another")
        for entry in folder.iterdir() if folder.is_dir() else ():
            if output.owns(entry) and not (entry.is_file() or entry.is_dir()):
                raise OutputError(
                    f"{entry} is no regular file, and would be written to; choose another "
                    f"folder for {output.name}"
                )
    except OSError as error:
        raise _unusable(output.path, error) from None


def _check_pair(output: Output, other: Output) -> None:
    ours, theirs = (
        _resolved(each.path) if each.writes else real_path(each.path) for each in (output, other)
    )
    same = ours == theirs or (ours.exists() and theirs.exists() and ours.samefile(theirs))
    if same or output.owns(theirs) or other.owns(ours):
        raise OutputError(
            f"{output.name} and {other.name} would both write {theirs}; choose two names"
        )


def _check_input(output: Output, source: Input) -> None:
    given = _resolved(source.path)
    over = output.replaces
    replaces = over is not None and over.exists() and over.samefile(given)
    hint = f" for {output.name}" + (", or give --force" if replaces else "")
    taken = OutputError(f"{output.path} {source.what}; choose another name{hint}")
    if output.writes:
        folder = _resolved(output.path)
        if output.owns(given) or (given.is_dir() and folder.is_relative_to(given)):
            raise taken
        for entry in folder.iterdir() if given.is_file() and given.stat().st_nlink > 1 else ():
            if output.owns(entry) and entry.samefile(given):
                raise taken
        return
    real = real_path(output.path)
    if not real.exists():
        return
    if given.is_dir():
        inside = real.is_relative_to(given) and real.suffix.lower() in _IMAGES
        if inside or (real.stat().st_nlink > 1 and _linked(real, given)):
            raise taken
    elif real.samefile(given) and not (replaces and output.force):
        raise taken


def _linked(file: Path, folder: Path) -> bool:
    """Whether a folder holds another name of the same file."""
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return any(each.exists() and each.samefile(file) for each in found)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, atomically.

    Raises
    ------
    OutputError
        The file cannot be written; what was there before still is.
    """
    with atomic(real_path(path)) as file:
        file.write(text.encode())


@contextmanager
def atomic(target: Path, remedy: str = "free space or choose another place") -> Iterator[IO[bytes]]:
    """Give a file that takes the place of `target`, no link, once it is complete."""
    with temporary(target, remedy) as (file, partial):
        yield file
        flush(file)
        if target.exists():
            partial.chmod(target.stat().st_mode & 0o7777)
        os.replace(partial, target)
    with suppress(OSError):  # not every file system can
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def temporary(
    target: Path, remedy: str = "free space or choose another place"
) -> Iterator[tuple[IO[bytes], Path]]:
    """Give a new file beside `target`, which is gone afterwards unless it was moved."""
    partial = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            # Not by the module tempfile: it makes files that only their owner can read.
            with partial.open("x+b") as file:
                yield file, partial
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; {remedy}") from None


def flush(file: IO[bytes]) -> None:
    """See to it that what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def add_digest(file: IO[bytes], name: str) -> None:
    """Append the digest of a file's content and of a name that it goes by."""
    size = file.seek(0, os.SEEK_END)
    digest = _digest(file, size, name)
    file.seek(size)
    file.write(digest)


def check_digest(file: IO[bytes], name: str) -> int:
    """Return the size of the content before the digest, and go to its start.

    Raises
    ------
    ValueError
        The file does not end with the digest of what comes before.
    """
    size = file.seek(0, os.SEEK_END) - _DIGEST
    if size < 0 or _digest(file, size, name) != file.read(_DIGEST):
        raise ValueError("it is damaged, or was written by something else")
    file.seek(0)
    return size


def _digest(file: IO[bytes], size: int, name: str) -> bytes:
    """Return the digest of a file's name and content, and leave it at the content's end."""
    digest = hashlib.blake2b(name.encode(), digest_size=_DIGEST // 2)
    file.seek(0)
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()
