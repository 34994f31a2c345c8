"""Archives that lie about themselves, or hold what numpy does not write."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from onnx_lowrank.data import open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

INPUTS = [TensorInfo("x", "tensor(float)", ("N", 2))]
X = np.arange(10, dtype=np.float32).reshape(5, 2)


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """Return an array file with any header."""
    text = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def described(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def plain(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Nothing may be allocated that the file's size does not justify."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def read(path: Path) -> list[float]:
    return [float(v) for b in open_dataset(path, INPUTS) for v in b.feeds["x"][: b.samples].flat]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_python_reads_are_read(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "d.npz", ("x.npy", plain(X)), method=method)
    assert read(path) == X.ravel().tolist()


def refused(path: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def patched(path: Path, change: Callable[[bytearray, int, int], None]) -> Path:
    """Change the bytes of an archive of one member, given where its two headers begin."""
    content = bytearray(archive(path, ("x.npy", plain(X))).read_bytes())
    change(content, content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02"))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "method", [9, 93, 95, 97, 12, 14, 8]
)  # deflate64, zstd, xz, ...; wrong ones
def test_other_compressions_are_refused(tmp_path: Path, method: int) -> None:
    def change(content: bytearray, local: int, central: int) -> None:
        struct.pack_into("<H", content, local + 8, method)
        struct.pack_into("<H", content, central + 10, method)

    refused(patched(tmp_path / "d.npz", change), r"cannot read array 'x' in .*; write it again")


def test_encryption_is_refused(tmp_path: Path) -> None:
    def change(content: bytearray, local: int, central: int) -> None:
        content[local + 6] |= 1
        content[central + 8] |= 1

    refused(patched(tmp_path / "d.npz", change), "encrypted")


def test_a_directory_that_declares_more_than_there_is_is_refused(tmp_path: Path) -> None:
    def change(content: bytearray, local: int, central: int) -> None:
        struct.pack_into("<I", content, central + 24, 0xF0000000)

    refused(patched(tmp_path / "d.npz", change), "shorter than its directory says")


@pytest.mark.parametrize("cut", range(0, 260, 7))
def test_truncated_archives_are_refused(tmp_path: Path, cut: int) -> None:
    content = archive(tmp_path / "d.npz", ("x.npy", plain(X))).read_bytes()
    (tmp_path / "d.npz").write_bytes(content[: min(cut, len(content) - 1)])
    refused(tmp_path / "d.npz", "cannot read")


HEADERS = {
    "petabytes": (npy(described("(1125899906842624, 2)"), b"x" * 64), "ends within sample 8"),
    "beyond 64 bits": (npy(described(f"({10**400}, 2)")), "no tuple of sizes"),
    "beyond Python": (npy(described(f"(1{'0' * 5000}, 2)")), "header does not read"),
    "many empty samples": (npy(described("(1125899906842624, 0)")), "samples of no elements"),
    "no sample": (npy(described("(0, 2)")), "no sample"),
    "negative": (npy(described("(-5, 2)")), "no tuple of sizes"),
    "boolean": (npy(described("(True, 2)"), b"x" * 8), "no tuple of sizes"),
    "float": (npy(described("(5.0, 2)"), b"x" * 40), "no tuple of sizes"),
    "a number": (npy(described("5")), "no tuple of sizes"),
    "no dict": (npy("[1, 2]"), "does not say type, order and shape"),
    "another key": (npy("{'descr': '<f4', 'shape': (1,), 'x': 1}"), "does not say type"),
    "order": (npy(described("(5, 2)", order="'yes'")), "neither true nor false"),
    "nested": (npy(described("(" * 9000 + ")" * 9000)), "header does not read"),
    "negations": (npy(described("(" + "-" * 30000 + "1,)")), "cannot read array 'x'"),
    "code": (npy(described("(__import__('os').getpid(),)")), "header does not read"),
    "10 MB": (npy(b" " * 10_000_000, version=2), "header of 10000000 bytes is too long"),
    "4 GB": (npy(b"", version=2)[:8] + b"\xff\xff\xff\xff", "is too long"),
    "version": (npy(described("(5, 2)"), version=9), "array format 9.0 is not supported"),
    "objects": (npy(described("(5, 2)", "'|O'")), "Python objects, which are not loaded"),
    "fields": (npy(described("(5,)", "[('a', '<f4'), ('b', '|O')]")), "none of numbers or text"),
    "subarray": (npy(described("(5,)", "'(1000000000,)f4'")), "none of numbers or text"),
    "no bytes": (npy(described("(5, 2)", "'<U0'")), "have no bytes"),
    "no type": (npy(described("(5, 2)", "'<f3'")), "cannot read array 'x'"),
    "huge text": (npy(described("(5, 2)", "'<U500000000'")), "ends within sample 0"),
    "void": (npy(described("(5, 2)", "'|V4'"), b"x" * 40), "but the data are"),
    "complex": (npy(described("(5, 2)", "'<c8'"), b"x" * 80), "but the data are complex64"),
    "nothing": (b"", "cannot read array 'x'"),
    "magic only": (b"\x93NUMPY\x01\x00", "cannot read array 'x'"),
    "pickle": (b"\x80\x04cposix\nsystem\n.", "it is no array"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_are_refused(tmp_path: Path, name: str, method: int) -> None:
    content, reason = HEADERS[name]
    refused(archive(tmp_path / "d.npz", ("x.npy", content), method=method), reason)


def test_headers_of_python_2_are_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.npz", ("x.npy", npy(described("(5L, 2L)"), X.tobytes())))
    assert read(path) == X.ravel().tolist()


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """300 MB of zeros in 300 kB: samples that fit are read, others are refused by their shape."""
    header = npy(described("(1, 75000000)"))
    path = archive(tmp_path / "d.npz", method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as x:
        x.write(header)
        for _ in range(300):
            x.write(bytes(1_000_000))
    assert path.stat().st_size < 400_000
    refused(path, r"shape \[75000000\] does not fit input 'x'")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.npz", ("x", plain(X)), ("x.npy", plain(X + 1)))
    refused(path, "holds array 'x' twice")


def test_names_are_names_and_no_paths(tmp_path: Path) -> None:
    for name in ("/etc/passwd", "../../x", "größe 大小", "a" * 300):
        assert read(archive(tmp_path / "d.npz", (name, plain(X)))) == X.ravel().tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]
    many = [(f"{i}.npy", plain(X)) for i in range(300)]
    with pytest.raises(DataError, match=r"it has 0, 1, 2, 3, 4, \.\.\."):
        read(archive(tmp_path / "d.npz", *many))


@pytest.mark.parametrize("descr", ["<f4", ">f4", ">i8", "|u1", "<f2", ">f8", "|b1"])
@pytest.mark.parametrize("shape", [(6, 2), (6, 2, 3), (6, 1, 4, 2)])
@pytest.mark.parametrize("limit", [None, 3])
def test_orders_of_axes_and_bytes_are_read_right(
    tmp_path: Path, descr: str, shape: tuple[int, ...], limit: int | None
) -> None:
    values = np.random.default_rng(0).integers(0, 2, shape).astype(descr)
    inputs = [TensorInfo("x", "tensor(float)", ("N", *shape[1:]))]
    found = []
    for order in ("C", "F"):
        np.savez(tmp_path / "d.npz", x=np.asarray(values, order=order))
        data = open_dataset(tmp_path / "d.npz", inputs, limit=limit)
        found.append(np.concatenate([b.feeds["x"][: b.samples] for b in data]))
    np.testing.assert_array_equal(found[0], found[1])
    if limit is None:
        np.testing.assert_array_equal(found[0], values.astype(np.float32))
