"""Preprocessing of images that come as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx_lowrank.data.dataset import Sample, Source
from onnx_lowrank.data.preprocess import ImageEncoder
from onnx_lowrank.errors import DataError


class EncodedImages:
    """Samples of another source, whose 8-bit images are preprocessed like those of files.

    Parameters
    ----------
    source : Source
        Samples that are uint8 images, ``[H, W]``, ``[H, W, 1]`` or ``[H, W, 3]`` (RGB).
    encoder : ImageEncoder
        Makes the input of an image.
    name : str
        The input that takes the images.
    """

    def __init__(self, source: Source, encoder: ImageEncoder, name: str) -> None:
        self._source = source
        self._encoder = encoder
        self._name = name

    @property
    def skipped(self) -> Sequence[str]:
        """What the source left out."""
        return self._source.skipped

    @property
    def samples(self) -> int | None:
        """Number of samples of the source."""
        return self._source.samples

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples; raise DataError where one is no 8-bit image."""
        from PIL import Image

        for sample in self._source:
            pixels = sample.feeds[self._name]
            if pixels.shape[2:] == (1,):
                pixels = pixels[:, :, 0]
            if pixels.dtype != "uint8" or pixels.ndim < 2 or pixels.shape[2:] not in ((), (3,)):
                raise DataError(
                    f"{sample.where}: preprocessing takes uint8 images [H, W] or [H, W, 3], not "
                    f"{pixels.dtype} {list(pixels.shape)}; leave it out where arrays are ready for "
                    "the model"
                )
            if 0 in pixels.shape:
                raise DataError(
                    f"{sample.where}: the image {list(pixels.shape)} has no pixels; leave it out"
                )
            values = self._encoder(Image.fromarray(pixels))
            yield Sample({self._name: values}, sample.label, sample.where)
