"""From pixels to inputs, against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_lowrank.data import PRESETS, Preprocess
from onnx_lowrank.data.preprocess import ImageEncoder
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

RED, GREEN, BLUE = 200, 100, 50
FLAT = Image.new("RGB", (40, 30), (RED, GREEN, BLUE))


def encoder(shape: Any, preprocess: Preprocess | str = "none") -> ImageEncoder:
    if isinstance(preprocess, str):
        preprocess = Preprocess.preset(preprocess)
    return ImageEncoder(preprocess, TensorInfo("x", "tensor(float)", shape))


# Resampling a flat image gives the same 8-bit values; what follows are three float32 operations.
RTOL = 4 * float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (
            "imagenet",
            [
                (RED / 255 - 0.485) / 0.229,
                (GREEN / 255 - 0.456) / 0.224,
                (BLUE / 255 - 0.406) / 0.225,
            ],
        ),
        ("caffe", [BLUE - 103.939, GREEN - 116.779, RED - 123.68]),
        ("tf", [RED / 127.5 - 1, GREEN / 127.5 - 1, BLUE / 127.5 - 1]),
        ("unit", [RED / 255, GREEN / 255, BLUE / 255]),
        ("none", [RED, GREEN, BLUE]),
    ],
)
@pytest.mark.parametrize("shape", [("N", 3, 8, 10), (1, 8, 10, 3)])
def test_presets_scale_each_channel(preset: str, expected: list[float], shape: Any) -> None:
    values = encoder(shape, preset)(FLAT)
    assert values.shape == shape[1:]
    assert values.dtype == np.float32
    channels = values if shape[1] == 3 else values.transpose(2, 0, 1)
    for channel, wanted in zip(channels, expected, strict=True):
        # The differences cancel: the error is relative to the terms, at most 255 / 0.22 / 255.
        np.testing.assert_allclose(channel, wanted, rtol=RTOL, atol=RTOL * 5)


def test_all_presets_are_covered() -> None:
    assert set(PRESETS) == {"imagenet", "caffe", "tf", "unit", "none"}


def test_an_image_of_the_right_size_is_taken_pixel_by_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    values = encoder((1, 3, 6, 5))(Image.fromarray(pixels))
    np.testing.assert_array_equal(values, pixels.transpose(2, 0, 1))


def test_the_crop_is_the_middle_and_keeps_proportions() -> None:
    # 64 x 32: a grey ramp along the columns, so that a value tells where it was taken from.
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (32, 1, 3))
    # Half of the shorter side, 16 x 16 pixels around the middle column 31.5: columns 24 to 39.
    values = encoder((1, 3, 16, 16), Preprocess(crop=0.5))(Image.fromarray(ramp))
    np.testing.assert_array_equal(values[0], np.tile(np.arange(24, 40), (16, 1)))
    # Stretched, the first and last columns of the result lie near the edges of the image.
    values = encoder((1, 3, 16, 16))(Image.fromarray(ramp))
    assert values[0, :, 0].max() < 4
    assert values[0, :, -1].min() > 59


def test_a_model_with_one_channel_sees_grey() -> None:
    grey = np.asarray(FLAT.convert("L"))[0, 0]
    values = encoder((1, 1, 4, 4), "imagenet")(FLAT)
    assert values.shape == (1, 4, 4)
    np.testing.assert_allclose(
        values,
        (grey / 255 - np.mean([0.485, 0.456, 0.406])) / np.mean([0.229, 0.224, 0.225]),
        rtol=RTOL,
        atol=RTOL * 5,
    )
    assert encoder((1, 4, 4, 1))(Image.new("L", (9, 9), 7)).tolist() == [[[7.0]] * 4] * 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_every_8_bit_mode_is_read(mode: str) -> None:
    white = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    np.testing.assert_array_equal(encoder((1, 3, 4, 4))(white), np.full((3, 4, 4), 255))


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_other_pixels_are_not_clipped_unseen(mode: str) -> None:
    with pytest.raises(ValueError, match="not 8-bit"):
        encoder((1, 3, 4, 4))(Image.new(mode, (4, 4)))


def test_the_size_comes_from_the_model_or_the_settings() -> None:
    assert encoder((1, 3, 7, 9)).size == (7, 9)
    assert encoder((1, 3, "H", "W"), Preprocess(size=(7, 9))).size == (7, 9)
    assert encoder((1, 3, None, None), Preprocess(size=5)).size == (5, 5)
    with pytest.raises(DataError, match="fixes no image size; give one"):
        encoder((1, 3, "H", "W"))
    with pytest.raises(DataError, match=r"images of 8x8 do not fit input 'x' \[1, 3, 7, 9\]"):
        encoder((1, 3, 7, 9), Preprocess(size=8))


@pytest.mark.parametrize("size", [10**6, (1, 10**300)])
def test_a_size_beyond_the_memory_is_refused(size: Any) -> None:
    with pytest.raises(DataError, match="an image of the size asked for would take"):
        encoder((1, 3, "H", "W"), Preprocess(size=size))


@pytest.mark.parametrize("shape", [None, (1, 3), (1, 784), (1, 5, 8, 8), (1, 3, 8, 8, 8)])
def test_inputs_that_are_no_images_are_refused(shape: Any) -> None:
    with pytest.raises(DataError, match="takes no images"):
        encoder(shape)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "image size"),
        ({"size": (8, -1)}, "image size"),
        ({"crop": 0.0}, "crop"),
        ({"crop": 1.5}, "crop"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (1.0,)}, "three values"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("inf")}, "finite"),
        ({"mean": (0.0, float("nan"), 0.0)}, "finite"),
        ({"mean": (0.0, 1e300, 0.0)}, "finite"),
        ({"std": (1.0, 1e-300, 1.0)}, "none that is zero"),
        ({"crop": float("nan")}, "crop"),
        ({"order": "RBG"}, "RGB or BGR"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess(**settings)


def test_an_unknown_preset_lists_the_known() -> None:
    with pytest.raises(DataError, match="choose one of imagenet, caffe, tf, unit, none"):
        Preprocess.preset("imagnet")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unit", Preprocess(scale=1 / 255)),
        ("none:", Preprocess()),
        ("none:size=8", Preprocess(size=8)),
        ("none:size=8x9,crop=0.5,order=bgr", Preprocess(size=(8, 9), crop=0.5, order="BGR")),
        ("unit:mean=0.5,std=1/2/4", Preprocess(scale=1 / 255, mean=(0.5,) * 3, std=(1, 2, 4))),
        ("tf:crop=none,mean=0,scale=2", Preprocess(scale=2)),
    ],
)
def test_settings_are_read_from_text(text: str, expected: Preprocess) -> None:
    assert Preprocess.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet:size=8", "unknown preprocessing 'imagnet'"),
        ("unit:sizes=8", "'sizes' is no setting of a preprocessing; did you mean 'size'"),
        ("unit:size", "'size' does not read; write e.g. size=224 or size=320x480"),
        ("unit:size=8x9x3", "'size=8x9x3' does not read"),
        ("unit:size=0", "the image size is 0"),
        ("unit:size=axb", "'size=axb' does not read"),
        ("unit:mean=1/2", "three values"),
        ("unit:crop=2", "the crop is 2.0"),
        ("unit:order=grey", "RGB or BGR"),
    ],
)
def test_text_that_does_not_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess.parse(text)
