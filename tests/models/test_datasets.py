from __future__ import annotations

import gzip
from pathlib import Path

import datasets
import numpy as np
import pytest
from registry import FetchError


def test_no_scene_is_on_both_sides() -> None:
    sides = datasets.split()
    scenes = [scene for _, _, listed in datasets.SCENES for scene in listed]
    assert len(sides) == sum(map(len, scenes))  # no name twice
    for scene in scenes:
        assert len({sides[name] for name in scene}) == 1
    evaluation = [scene for scene in scenes if sides[scene[0]] == "evaluation"]
    assert len(evaluation) == len(scenes) // 3


def test_read_idx_reads_its_shape_and_values() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4])
    found = datasets.read_idx(gzip.compress(header + values.tobytes()))
    np.testing.assert_array_equal(found, values)
    with pytest.raises(FetchError, match="not an idx file"):
        datasets.read_idx(gzip.compress(b"\x00\x00\x0d\x01"))


def test_an_unknown_name_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        datasets.main(["photos"])
    assert stopped.value.code == 2
    assert "fashion-mnist" in capsys.readouterr().err


@pytest.mark.network
def test_photographs_are_colour_images_on_two_sides() -> None:
    paths = sorted(datasets.dataset("photographs").glob("*/*"))
    assert {path.name: path.parent.name for path in paths} == datasets.split()
    _assert_photographs(paths)


@pytest.mark.network
def test_wallpapers_are_colour_images() -> None:
    paths = sorted(datasets.dataset("wallpapers").iterdir())
    assert len(paths) == 25
    _assert_photographs(paths)


def _assert_photographs(paths: list[Path]) -> None:
    image = pytest.importorskip("PIL.Image")
    for path in paths:
        with image.open(path) as picture:
            assert picture.mode == "RGB", path.name
            assert min(picture.size) >= 224, path.name
            # getcolors gives None where there are more: a drawing has few.
            assert picture.getcolors(1000) is None, path.name


@pytest.mark.network
def test_fashion_mnist_is_complete(cache: Path) -> None:
    folder = datasets.dataset("fashion-mnist")
    assert folder == cache / "datasets/fashion-mnist"
    for name, count in (("train", 60_000), ("test", 10_000)):
        with np.load(folder / f"{name}.npz") as arrays:
            images, labels = arrays["images"], arrays["labels"]
        assert images.shape == (count, 28, 28)
        assert images.dtype == np.uint8
        assert (images.min(), images.max()) == (0, 255)
        assert np.bincount(labels).tolist() == [count // 10] * 10


@pytest.mark.network
@pytest.mark.parametrize(("name", "classes"), [("imagenet-samples", 1000), ("cifar10-samples", 10)])
def test_samples_carry_their_labels(
    name: str, classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "copy"
    assert datasets.main([name, "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    labels = [int(path.stem.split("_")[-1]) for path in output.iterdir()]
    assert len(labels) == 20
    assert max(labels) < classes
