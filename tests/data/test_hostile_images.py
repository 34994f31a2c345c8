"""Images that are not what their names say, turned, huge, odd or damaged."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

INPUT = TensorInfo("x", "tensor(float)", ("N", 3, 4, 6))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n%%EOF\n"


def load(source: Path, **options: Any) -> Dataset:
    return open_dataset(source, [INPUT], preprocess="none", **options)


def first(source: Path, **options: Any) -> np.ndarray:
    return next(iter(load(source, **options))).feeds["x"][0]


def unreadable(folder: Path, name: str) -> str:
    """Return why the only image of a folder cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="cannot read image") as caught:
            list(load(folder, strict=True))
        with pytest.raises(DataError, match="1 could not be read, the first: "):
            list(load(folder))
    text = str(caught.value)
    assert name in text
    assert "\n" not in text
    return text


def test_a_postscript_file_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of Ghostscript's name says that it was run."""
    programs, images = tmp_path / "programs", tmp_path / "images"
    programs.mkdir()
    images.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (images / "a.png").write_bytes(EPS)
    assert "not a JPEG or PNG image" in unreadable(images, "a.png")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PDF", "WEBP"])
def test_other_formats_under_these_names_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow writes no WebP")
    with (tmp_path / "a.jpg").open("wb") as file:
        Image.new("RGB", (16, 16)).save(file, kind)
    assert "not a JPEG or PNG image" in unreadable(tmp_path, "a.jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_are_turned_as_their_exif_says(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    upright = np.kron([[0, 60, 120], [180, 240, 30]], np.ones((2, 2))).astype(np.uint8)
    # How a camera that was held like this stores it; from the definition of the tag.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    # JPEG rounds by a few levels.
    np.testing.assert_allclose(first(tmp_path)[0], upright, atol=0 if suffix == "png" else 6)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\xff" * 50])
def test_damaged_metadata_leave_the_image_as_it_is(tmp_path: Path, exif: bytes) -> None:
    Image.new("RGB", (6, 4), (10, 20, 30)).save(tmp_path / "a.png", exif=exif)
    Image.new("RGB", (6, 4), (10, 20, 30)).save(tmp_path / "b.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tmp_path, strict=True)
        assert sum(b.samples for b in data) == 2


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """Return a grey PNG file that declares any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# The first is where Pillow warns, the second where it refuses.
@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_bombs_are_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side))
    unreadable(tmp_path, "a.png")


def test_animated_images_are_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), (v, v, v)) for v in (10, 20)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert np.unique(first(tmp_path, strict=True)).tolist() == [10]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_of_8_bits_are_read(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(first(tmp_path, strict=True), 255, atol=1)


def test_16_bit_images_are_named(tmp_path: Path) -> None:
    Image.new("I;16", (6, 4), 999).save(tmp_path / "deep.png")
    assert "not 8-bit" in unreadable(tmp_path, "deep.png")


def test_any_file_name_is_named(tmp_path: Path) -> None:
    """As it is: what prints an error escapes what a terminal would obey."""
    name = "a\nerror: \x1b[31m\udcff.png"
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        list(load(tmp_path, strict=True))
    assert name in str(caught.value)


def test_links_that_lead_in_circles_are_found(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "cat").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(images / "cat" / "a.png")
    (images / "self.png").symlink_to("self.png")
    (images / "self").symlink_to("self")
    (images / "cat" / "up").symlink_to(images)
    assert len(load(images)) == 1
    (images / "dog").symlink_to(images)
    with pytest.raises(DataError, match=r"'dog' of .* is a link to a folder around it"):
        load(images)


def test_a_link_to_a_class_elsewhere_is_a_class(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "elsewhere")
    assert len(load(tmp_path / "images")) == 1


def test_class_lists_are_bounded_and_clear(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (6, 4)).save(root / name / "a.png")
    names = tmp_path / "names.txt"
    names.write_text("\ufeffcat\ncrane\ndog\ncrane\n", encoding="utf-8")
    (batch,) = load(root, labels_from=names)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 2]
    names.write_text("cat\ndog\ncat\n")
    with pytest.raises(DataError, match="class 'cat' is twice in "):
        load(root, labels_from=names)
    for path, reason in (
        (Path("/dev/zero"), "more than 16777216 bytes"),
        (Path("a\0b"), "null"),
        (root, "directory"),
        (Path("n" * 300), "too long"),
    ):
        with pytest.raises(DataError, match=f"(?s)cannot read the class list .*{reason}"):
            load(root, labels_from=path)
    names.write_bytes(b"cat\ndog\xff\n")
    with pytest.raises(DataError, match="cannot read the class list"):
        load(root, labels_from=names)


@pytest.mark.parametrize("source", ["", "a\0b", "n" * 5000, "\udcff", "a\nb", ":", "/dev/null"])
def test_what_is_no_source_is_named(source: str) -> None:
    with pytest.raises(DataError, match="no data at"):
        open_dataset(source, [INPUT])
