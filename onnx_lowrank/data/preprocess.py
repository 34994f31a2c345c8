"""From an image to the array that a model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import DataError, suggest
from onnx_lowrank.runtime import TensorInfo
from onnx_lowrank.runtime.capacity import check_size

if TYPE_CHECKING:
    from PIL.Image import Image

_CROP = 224 / 256  # the usual evaluation crop: 224 out of images scaled to 256


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How pixels become numbers: resized, then ``(pixel * scale - mean) / std`` per channel.

    Attributes
    ----------
    size : int, (int, int) or None
        Height and width to make; None takes the model's own.
    crop : float or None
        The image is scaled, keeping its proportions, until the part ``crop`` of it covers `size`,
        which is then cut from its middle. None stretches the whole image to `size`.
    scale : float
        Factor of the 8-bit pixel values.
    mean, std : tuple of 3 floats
        Per channel, in the order of `order`; a model with one channel takes the mean of the three.
    order : {"RGB", "BGR"}
        Order of the channels that the model expects.
    """

    size: int | tuple[int, int] | None = None
    crop: float | None = None
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        sizes = () if self.size is None else self._pair(self.size)
        if any(s < 1 for s in sizes):
            raise DataError(f"the image size is {self.size}; give positive numbers of pixels")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise DataError(
                f"the crop is {self.crop}; give a fraction above 0 and up to 1, or none"
            )
        with np.errstate(over="ignore", under="ignore"):  # as they are used
            mean, std, scale = (np.array(v, np.float32) for v in (self.mean, self.std, self.scale))
        finite = all(np.isfinite(values).all() for values in (mean, std, scale))
        if len(self.mean) != 3 or len(self.std) != 3 or not (finite and std.all() and scale):
            raise DataError(
                "mean and std need three values each, std and scale none that is zero, and all of "
                "them need finite values"
            )
        if self.order not in ("RGB", "BGR"):
            raise DataError(f"the channel order is '{self.order}'; choose RGB or BGR")

    @classmethod
    def preset(cls, name: str) -> Preprocess:
        """Return the preset of this name; raise DataError with the known names otherwise."""
        if name not in PRESETS:
            raise DataError(f"unknown preprocessing '{name}'; choose one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read ``PRESET`` or ``PRESET:key=value,...``, which changes some of a preset's settings.

        Examples: ``unit``, ``imagenet:size=320x480,crop=none``, ``unit:mean=0.1307,std=0.3081``,
        ``none:scale=0.0078125,mean=1/1/1,order=BGR``. One value of mean or std counts for all three
        channels. Raises DataError for anything else.
        """
        name, _, rest = text.partition(":")
        preset = cls.preset(name)
        if not rest:
            return preset
        changes: dict[str, Any] = {}
        for item in rest.split(","):
            key, _, value = item.partition("=")
            if key not in _READERS:
                raise DataError(
                    f"'{key}' is no setting of a preprocessing{suggest(key, _READERS)}; "
                    f"choose from {', '.join(_READERS)}"
                )
            try:
                changes[key] = _READERS[key](value)
            except ValueError as error:
                raise DataError(
                    f"'{item}' does not read; write e.g. {_EXAMPLES[key]} in the preprocessing"
                ) from error
        return replace(preset, **changes)

    @staticmethod
    def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
        return (size, size) if isinstance(size, int) else size


def _size(text: str) -> int | tuple[int, int]:
    if "x" not in text:
        return int(text)
    height, width = text.split("x")
    return int(height), int(width)


def _triple(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split("/"))
    return values * 3 if len(values) == 1 else values


_READERS: dict[str, Callable[[str], Any]] = {
    "size": _size,
    "crop": lambda text: None if text == "none" else float(text),
    "scale": float,
    "mean": _triple,
    "std": _triple,
    "order": str.upper,
}
_EXAMPLES = {
    "size": "size=224 or size=320x480",
    "crop": "crop=0.875 or crop=none",
    "scale": "scale=0.00392157",
    "mean": "mean=0.5 or mean=0.485/0.456/0.406",
    "std": "std=0.5 or std=0.229/0.224/0.225",
    "order": "order=BGR",
}

PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess(
        crop=_CROP, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "caffe": Preprocess(crop=_CROP, mean=(103.939, 116.779, 123.68), order="BGR"),
    "tf": Preprocess(crop=_CROP, scale=1 / 127.5, mean=(1.0, 1.0, 1.0)),
    "unit": Preprocess(scale=1 / 255),
    "none": Preprocess(),
}


class ImageEncoder:
    """A preprocessing bound to one model input, whose shape tells layout, channels and size.

    ``[N, c, H, W]`` and ``[N, H, W, c]`` with c = 1 or 3; the former where both would fit.

    Parameters
    ----------
    preprocess : Preprocess
        What to do with the pixels.
    info : TensorInfo
        The input.

    Raises
    ------
    DataError
        The input is not an image, or neither it nor `preprocess` fixes a size, or they differ; or
        Pillow is not installed.
    """

    def __init__(self, preprocess: Preprocess, info: TensorInfo) -> None:
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise DataError("images need Pillow; run pip install 'onnx_lowrank[images]'") from error
        shape = info.shape
        if shape is None or len(shape) != 4 or (shape[1] not in (1, 3) and shape[3] not in (1, 3)):
            raise DataError(
                f"input '{info.name}' {info.describe_shape()} takes no images: it should be [N, c, "
                f"H, W] or "
                "[N, H, W, c] with 1 or 3 channels; give the data as .npz or module:callable, or "
                "the "
                "input's shape"
            )
        self.channels_first = shape[1] in (1, 3)
        channels, height, width = (
            (shape[1], shape[2], shape[3])
            if self.channels_first
            else (shape[3], shape[1], shape[2])
        )
        self.grey = channels == 1
        own = (height, width)
        if preprocess.size is not None:
            self.size = Preprocess._pair(preprocess.size)
            if any(isinstance(o, int) and o != s for o, s in zip(own, self.size, strict=True)):
                raise DataError(
                    f"images of {self.size[0]}x{self.size[1]} do not fit input '{info.name}' "
                    f"{info.describe_shape()}; leave the size out"
                )
        elif isinstance(height, int) and isinstance(width, int):
            self.size = (height, width)
        else:
            raise DataError(
                f"input '{info.name}' {info.describe_shape()} fixes no image size; "
                "give one in the preprocessing, or the input's shape"
            )
        check_size(
            (*self.size, channels if isinstance(channels, int) else 3),
            np.dtype(np.float32).itemsize,
            "an image of the size asked for",
            remedy="give a smaller one",
        )
        self._preprocess = preprocess
        mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
        self._mean = mean.mean(keepdims=True) if self.grey else mean
        self._std = std.mean(keepdims=True) if self.grey else std

    def __call__(self, image: Image) -> NDArray[Any]:
        """Return one image as float32, ``(c, H, W)`` or ``(H, W, c)``.

        Raises ValueError where its pixels are not 8-bit.
        """
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels are not 8-bit (mode {image.mode})")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        pixels = np.asarray(self._resize(image.convert("L" if self.grey else "RGB")), np.float32)
        if self.grey:
            pixels = pixels[:, :, None]
        elif self._preprocess.order == "BGR":
            pixels = pixels[:, :, ::-1]
        with np.errstate(over="ignore", invalid="ignore"):  # whether all is finite is checked later
            values = (pixels * np.float32(self._preprocess.scale) - self._mean) / self._std
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.channels_first else values)

    def _resize(self, image: Image) -> Image:
        from PIL.Image import Resampling

        height, width = self.size
        if self._preprocess.crop is None:
            box = (0.0, 0.0, float(image.width), float(image.height))
        else:
            # The part of the original that ends up in the result: one resampling instead of two.
            ratio = self._preprocess.crop * min(image.width / width, image.height / height)
            w, h = width * ratio, height * ratio
            left, top = (image.width - w) / 2, (image.height - h) / 2
            box = (left, top, left + w, top + h)
        if box == (0, 0, image.width, image.height) and image.size == (width, height):
            return image
        return image.resize((width, height), Resampling.BILINEAR, box=box)
