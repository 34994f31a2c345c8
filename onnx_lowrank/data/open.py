"""One door to all sources of data."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx_lowrank.data.dataset import Dataset, Source, batched_inputs
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
        For images: a preset's name or all settings; ``imagenet`` by default. Arrays are fed as
        they are.
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
    if path is not None and path.is_dir():
        opened = _open_folder(path, inputs, preprocess, labels, strict, limit, seed)
    else:
        if preprocess is not None:
            raise DataError(
                "preprocessing applies to folders of images; arrays are fed as they are, so leave "
                "it out"
            )
        if path is not None and path.is_file():
            opened = NpzFile(path, inputs, batched, labels_from=labels, limit=limit, seed=seed)
        else:
            if path is not None:
                source = _named_callable(os.fspath(path) if not isinstance(source, str) else source)
            if labels not in (None, "none"):
                raise DataError(
                    "feeds carry their labels themselves; leave the source of labels out"
                )
            opened = FeedStream(source, inputs, batched, use_labels=labels is None, limit=limit)
    return Dataset(opened, inputs, batch=batch, limit=limit)


def _open_folder(
    folder: Path,
    inputs: Sequence[TensorInfo],
    preprocess: Preprocess | str | None,
    labels: str | None,
    strict: bool,
    limit: int | None,
    seed: int,
) -> ImageFolder:
    if len(inputs) != 1:
        raise DataError(
            f"a folder of images feeds one input, but the model has {len(inputs)} "
            f"({', '.join(i.name for i in inputs)}); give an .npz or module:callable"
        )
    if preprocess is None or isinstance(preprocess, str):
        preprocess = Preprocess.preset(preprocess or DEFAULT_PREPROCESS)
    return ImageFolder(
        folder,
        ImageEncoder(preprocess, inputs[0]),
        inputs[0].name,
        labels_from=labels,
        strict=strict,
        limit=limit,
        seed=seed,
    )


def _named_callable(source: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", source):
        raise DataError(
            f"no data at {source}; give a folder of images, an .npz file or module:callable"
        )
    return load_callable(source)
