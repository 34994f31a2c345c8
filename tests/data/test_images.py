"""Folders of images: labels, order, unreadable files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

INPUT = TensorInfo("x", "tensor(float)", ("N", 3, 4, 4))


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, value, value)).save(path)


def folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3) -> Path:
    """Flat images of value 10 times the class plus the number: pixels tell the label."""
    for label, name in enumerate(classes):
        for i in range(each):
            write(root / name / f"{i}.png", 10 * label + i)
    return root


def load(source: Path, **options: Any) -> Dataset:
    return open_dataset(source, [INPUT], preprocess="none", **options)


def pixels(data: Dataset) -> list[int]:
    return [int(v) for b in data for v in b.feeds["x"][: b.samples, 0, 0, 0]]


def labels(data: Dataset) -> list[int]:
    return [int(v) for b in data if b.labels is not None for v in b.labels]


def test_subfolders_sorted_by_name_are_the_labels(tmp_path: Path) -> None:
    data = load(folder(tmp_path, ("dog", "cat")), batch=4)
    assert pixels(data) == [10, 11, 12, 0, 1, 2]
    assert labels(data) == [0, 0, 0, 1, 1, 1]
    assert len(data) == 6
    assert pixels(data) == [10, 11, 12, 0, 1, 2]


def test_all_formats_and_deeper_folders_are_found_and_others_left_alone(tmp_path: Path) -> None:
    for i, name in enumerate(["a.png", "b.JPG", "c.jpeg", "deep/er/d.PNG"]):
        write(tmp_path / "only" / name, 50 + i)
    (tmp_path / "only" / "notes.txt").write_text("no image")
    (tmp_path / "only" / "._a.png").write_text("no image either")
    (tmp_path / "empty").mkdir()
    data = load(tmp_path, strict=True)
    # JPEG stores flat grey within one level of rounding.
    np.testing.assert_allclose(pixels(data), [50, 51, 52, 53], atol=1)
    assert labels(data) == [0] * 4


def test_images_in_the_folder_itself_have_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", i)
    data = load(tmp_path)
    assert pixels(data) == [0, 1, 2]
    assert [b.labels for b in data] == [None]
    with pytest.raises(DataError, match="has no class subfolders"):
        load(tmp_path, labels_from=tmp_path / "classes.txt")


def test_a_class_list_gives_the_models_order(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("bird\ndog\n\ncat\n", encoding="utf-8")
    root = folder(tmp_path / "images")
    assert labels(load(root, labels_from=names)) == [3] * 3 + [1] * 3
    assert labels(load(root, labels_from="none")) == []
    names.write_text("dog\ncats\n")
    with pytest.raises(DataError, match=r"'cat' is not in .*did you mean 'cats'"):
        load(root, labels_from=names)
    with pytest.raises(DataError, match="cannot read the class list"):
        load(root, labels_from=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("names", "clear"),
    [
        (("0", "1", "2"), True),
        (("1", "2", "3"), True),
        (tuple(f"{i:02d}" for i in range(12)), True),
        (("0", "3"), False),
        (tuple(map(str, range(11))), False),
    ],
)
def test_numbered_classes_are_never_renumbered_unseen(
    tmp_path: Path, names: tuple[str, ...], clear: bool
) -> None:
    root = folder(tmp_path, names, each=1)
    if clear:
        assert labels(load(root)) == list(range(len(names)))
    else:
        with pytest.raises(DataError, match="its label is not clear; give a class list"):
            load(root)


def test_images_both_loose_and_in_subfolders_are_refused(tmp_path: Path) -> None:
    write(folder(tmp_path) / "loose.png", 1)
    with pytest.raises(DataError, match="images itself and in subfolders"):
        load(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"no JPEG or PNG images in .*; check the path"):
        load(tmp_path)


def break_files(root: Path) -> list[Path]:
    """Add files that are no image, cut short, of a bad checksum, empty, of 16-bit pixels."""
    whole = root / "cat" / "whole.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    broken = {
        "text.jpg": b"no image at all",
        "cut.png": data[: len(data) // 2],
        "bits.png": data[:60] + bytes([data[60] ^ 255]) + data[61:],
        "empty.jpeg": b"",
    }
    for name, content in broken.items():
        (root / "cat" / name).write_bytes(content)
    Image.new("I;16", (4, 4), 999).save(root / "cat" / "deep.png")
    return [root / "cat" / name for name in [*broken, "deep.png"]]


def test_unreadable_images_are_skipped_named_and_counted(tmp_path: Path) -> None:
    root = folder(tmp_path)
    broken = break_files(root)
    data = load(root, batch=2)
    assert pixels(data) == [0, 1, 2, 10, 11, 12]
    assert sorted(s.split(":")[0] for s in data.skipped) == sorted(f"cat/{p.name}" for p in broken)
    assert len(data) == 6
    assert pixels(data) == [0, 1, 2, 10, 11, 12]
    assert len(data.skipped) == len(broken)


def test_an_unreadable_image_is_fatal_where_strict(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for path in break_files(root):
        with pytest.raises(
            DataError, match=r"cannot read image cat/.*; repair or remove it"
        ) as caught:
            pixels(load(root, strict=True))
        assert "\n" not in str(caught.value)
        path.unlink()


def test_nothing_but_unreadable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no sample; 1 could not be read, the first: a\.png: "):
        pixels(load(tmp_path))


def test_a_limit_takes_a_seeded_sample_of_all_classes(tmp_path: Path) -> None:
    root = folder(tmp_path, ("a", "b", "c", "d"), each=9)
    chosen = pixels(load(root, limit=12, seed=3))
    assert len(set(chosen)) == 12
    assert chosen == pixels(load(root, limit=12, seed=3))
    assert set(chosen) != set(pixels(load(root, limit=12, seed=4)))
    # The first 12 in order would be of two classes only.
    assert {p // 10 for p in chosen} == {0, 1, 2, 3}
    data = load(root, limit=12, seed=3)
    assert labels(data) == [p // 10 for p in pixels(data)]


def test_unreadable_images_are_made_up_for_until_there_are_none(tmp_path: Path) -> None:
    root = folder(tmp_path, each=5)
    (root / "cat" / "bad1.png").write_bytes(b"x")
    (root / "dog" / "bad2.png").write_bytes(b"x")
    assert len(set(pixels(load(root, limit=10)))) == 10
    with pytest.raises(
        DataError, match=r"11 samples were asked for, but only 10 .* 2 could not be"
    ):
        pixels(load(root, limit=11))
    with pytest.raises(DataError, match="13 samples were asked for, but there are only 12"):
        load(root, limit=13)


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"pip install 'onnx_lowrank\[images\]'"):
        load(tmp_path)
