"""The one door to all sources refuses what it cannot open, and says what it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_lowrank.data import Preprocess, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

IMAGE = TensorInfo("x", "tensor(float)", (1, 3, 4, 4))
IMAGE_BATCH = TensorInfo("x", "tensor(float)", ("N", 3, 4, 4))


@pytest.mark.parametrize("source", ["no/such/folder", "data.npz", "C:", "a b:c", Path("nothing")])
def test_what_is_not_there_is_said(source: Any) -> None:
    with pytest.raises(DataError, match=r"no data at .*; give a folder of images, an .npz file or"):
        open_dataset(source, [IMAGE])


@pytest.mark.parametrize("source", [3, None, object()])
def test_other_objects_are_refused(source: Any) -> None:
    with pytest.raises(DataError, match=r"cannot read data from a .*; give a folder of images"):
        open_dataset(source, [IMAGE])


def test_images_feed_one_input_only(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    other = TensorInfo("mask", "tensor(float)", (1, 1))
    with pytest.raises(DataError, match=r"the model has 2 \(x, mask\)"):
        open_dataset(tmp_path, [IMAGE, other])


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
def test_8_bit_images_in_arrays_are_preprocessed_like_files(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(tmp_path / f"{i}.png")
    np.savez(tmp_path / "d.npz", images=pixels, labels=[0, 1, 2])
    (files,) = open_dataset(tmp_path, [IMAGE_BATCH], preprocess="caffe")
    (archive,) = open_dataset(tmp_path / "d.npz", [IMAGE_BATCH], preprocess="caffe")
    (feed,) = open_dataset([{"x": pixels}], [IMAGE_BATCH], preprocess="caffe")
    np.testing.assert_array_equal(archive.feeds["x"], files.feeds["x"])
    np.testing.assert_array_equal(feed.feeds["x"], files.feeds["x"])
    assert archive.labels is not None
    assert archive.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("pixels", [np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 4, 4, 3))])
def test_arrays_that_are_no_8_bit_images_are_not_preprocessed(pixels: Any) -> None:
    with pytest.raises(DataError, match=r"preprocessing takes uint8 images \[H, W\]"):
        next(iter(open_dataset([{"x": pixels}], [IMAGE], preprocess="unit")))


def test_images_are_preprocessed_as_for_imagenet_unless_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")
    default, named, full = (
        next(iter(open_dataset(tmp_path, [IMAGE], preprocess=p))).feeds["x"]
        for p in (None, "imagenet", Preprocess(scale=1 / 255, mean=(1, 0, 0), std=(1, 2, 4)))
    )
    np.testing.assert_array_equal(default, named)
    np.testing.assert_array_equal(full, np.zeros((1, 3, 4, 4)))
