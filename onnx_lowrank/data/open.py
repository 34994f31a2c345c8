"""One door to all sources of data."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx_lowrank.data.dataset import Dataset, Source, batched_inputs
from onnx_lowrank.data.encoded import EncodedImages
from onnx_lowrank.data.feeds import FeedStream, load_callable
from onnx_lowrank.data.images import ImageFolder
from onnx_lowrank.data.npz import NpzFile
from onnx_lowrank.data.preprocess import ImageEncoder, Preprocess
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

DEFAULT_PREPROCESS = "imagenet"


def open_dataset(
    source: Any,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | str | None = None,
    limit: int | None = None,
    batch: int | None = None,
    labels_from: str | os.PathLike[str] | None = None,
    strict: bool = False,
    seed: int = 0,
) -> Dataset:
    """Open data for a model.

    Parameters
    ----------
    source : path, str, iterable, callable or calibration reader
        A folder of JPEG or PNG images (class subfolders are labels, sorted by name); an ``.npz``
        file (arrays by input name, optional ``labels``); ``"module:callable"``, which returns an
        iterable of feeds; such a callable or iterable itself; onnxruntime's CalibrationDataReader.
        A feed is a dict of arrays by input name, or a pair of that and labels.
    inputs : sequence of TensorInfo
        The model's inputs, as of a session or of `model_inputs`.
    preprocess : Preprocess or str, optional
        For images: settings, or text as of `Preprocess.parse`. ``imagenet`` by default for folders.
        Arrays are fed as they are, unless this is given: then they are uint8 images ``[H, W]`` or
        ``[H, W, 3]``.
    limit : int, optional
        Number of samples to use: a fair sample, by `seed`, of a folder or an .npz; the first ones
        of feeds.
    batch : int, optional
        Samples per batch, 8 by default; a model that fixes its batch size has its own.
    labels_from : path or str, optional
        ``"none"`` for no labels. Folder: a text file with the class names in the model's order.
        ``.npz``: the array's name.
    strict : bool
        Whether an unreadable image is an error instead of being skipped.
    seed : int
        Seed of the choice of samples.

    Raises
    ------
    DataError
        The source cannot be read or does not fit the model; some faults show only while iterating.
    """
    batched = batched_inputs(inputs)
    labels = os.fspath(labels_from) if labels_from is not None else None
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    opened: Source
    # By os.path, to which what is no path at all does not exist either: NUL in it, or too long.
    if path is not None and os.path.isdir(source):
        opened = ImageFolder(
            path,
            _encoder(preprocess or DEFAULT_PREPROCESS, inputs),
            inputs[0].name,
            labels_from=labels,
            strict=strict,
            limit=limit,
            seed=seed,
        )
        return Dataset(opened, inputs, batch=batch, limit=limit)
    if path is not None and os.path.isfile(source):
        opened = NpzFile(
            path,
            inputs,
            batched,
            labels_from=labels,
            limit=limit,
            seed=seed,
            encoded=preprocess is not None,
        )
    else:
        if path is not None:
            source = _named_callable(str(source))
        if labels not in (None, "none"):
            raise DataError("feeds carry their labels themselves; leave the source of labels out")
        opened = FeedStream(source, inputs, batched, use_labels=labels is None, limit=limit)
    if preprocess is not None:
        opened = EncodedImages(opened, _encoder(preprocess, inputs), inputs[0].name)
    return Dataset(opened, inputs, batch=batch, limit=limit)


def _encoder(preprocess: Preprocess | str, inputs: Sequence[TensorInfo]) -> ImageEncoder:
    if len(inputs) != 1:
        raise DataError(
            f"images feed one input, but the model has {len(inputs)} "
            f"({', '.join(i.name for i in inputs)}); give arrays that are ready for the model"
        )
    if isinstance(preprocess, str):
        preprocess = Preprocess.parse(preprocess)
    return ImageEncoder(preprocess, inputs[0])


def _named_callable(source: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", source):
        raise DataError(
            f"no data at {source}; give a folder of images, an .npz file or module:callable"
        )
    return load_callable(source)
