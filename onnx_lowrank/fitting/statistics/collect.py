"""One pass over the data: activations become sums."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.data.dataset import batched_inputs
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.fitting.statistics.jobs import Job, Passes
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason
from onnx_lowrank.metrics.accumulator import MomentAccumulator
from onnx_lowrank.metrics.patches import choose_positions, extract_patches, output_size
from onnx_lowrank.runtime import NO_SPINNING, Provider, Session, open_session
from onnx_lowrank.types import Array

Images = NDArray[Any]


class Sums(Protocol):
    """Sums over the patches of one layer, image by image."""

    def add(self, patches: Array, *, positions: int, original: Array | None = None) -> None:
        """Add one image, as of `MomentAccumulator.add`."""
        ...


def open_with_outputs(
    model: onnx.ModelProto, tensors: set[str], provider: Provider, threads: int | None
) -> Session:
    """Open a session of a copy of a model that has `tensors` among its outputs.

    All of them are tensors of the model.
    """
    copy = load_model(model)
    graph = copy.graph
    known = {value.name for value in (*graph.input, *graph.output)}
    for name in sorted(tensors - known):
        graph.output.add().name = name
    return open_session(copy, provider=provider, threads=threads, options=NO_SPINNING)


def measure_sizes(session: Session, dataset: Dataset, jobs: Sequence[Job]) -> list[Job]:
    """Return `jobs` with the sizes of the first batch where nothing else tells them.

    Shape inference ends at a Reshape to a computed shape, such as exporters write before the first
    fully connected layer.
    """
    unknown = [job.tensor for job in jobs if job.conv.output_positions is None]
    if not unknown:
        return list(jobs)
    batch = next(iter(dataset))
    values = _activations(session, batch, list(dict.fromkeys(unknown)))
    rows = rows_of(batch, dataset)
    found = []
    for job in jobs:
        try:
            each = job
            if job.tensor in values:
                each = sized(job, by_image(job.tensor, values[job.tensor], rows).shape)
        except LAYER_ERRORS:  # it is said when the job's turn comes
            each = job
        found.append(each)
    return found


def sized(job: Job, shape: Sequence[int]) -> Job:
    """Return a job with the sizes that its tensor has by image, if it does not know its own."""
    if job.conv.output_positions is not None:
        return job
    _, pieces, *rest = shape
    inputs, outputs = _sizes(job.conv, rest)
    # Pieces of an image are so many more positions.
    conv = replace(job.conv, input_size=(pieces, *inputs), output_size=(pieces, *outputs))
    return replace(job, conv=conv)


def _sizes(conv: ConvSpec, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the input and output positions of a piece, ``(C, *spatial)`` or ``(..., C)``."""
    if not conv.kernel:
        return tuple(shape[:-1]), tuple(shape[:-1])
    return tuple(shape[1:]), output_size(conv, shape[1:])


def collect(
    session: Session,
    dataset: Dataset,
    sums: dict[Job, MomentAccumulator],
    passes: Passes,
    *,
    refused: dict[Job, str],
) -> Iterator[int]:
    """Run a model over the data and add what the jobs' tensors hold to their sums.

    A job that fails goes from `sums` to `refused`, with the reason, and the others go on.

    Parameters
    ----------
    session : Session
        Of the model, the tensors among its outputs.
    dataset : Dataset
        The data.
    sums : dict of Job to MomentAccumulator
        Where to add.
    passes : Passes
        How much of every image is looked at, and the seed of the choice.
    refused : dict of Job to str
        Where reasons are added.

    Yields
    ------
    int
        The number of images done, at the start and after each batch.
    """
    done = 0
    yield done
    for batch in dataset:
        if not sums:
            return
        values = _activations(session, batch, list(dict.fromkeys(job.tensor for job in sums)))
        rows = rows_of(batch, dataset)
        for job in list(sums):
            try:
                images = by_image(job.tensor, values[job.tensor], rows)
                add_batch(
                    sums[job],
                    job,
                    [images],
                    passes,
                    samples=batch.samples,
                    first=done,
                )
            except LAYER_ERRORS as error:
                refused[job] = layer_reason(error)
                del sums[job]
        done += batch.samples
        yield done


def add_batch(
    accumulator: Sums,
    job: Job,
    activations: Sequence[Images],
    passes: Passes,
    *,
    samples: int,
    first: int,
) -> None:
    """Add a batch of a job's tensor, by image as `by_image` gives it, as every model sees it.

    The first `samples` images count; `first` is the number of images before the batch. The others
    are as of `collect`.

    Raises
    ------
    ModelError
        The models' tensors differ in shape.
    """
    if len({each.shape for each in activations}) > 1:
        raise ModelError(
            f"tensor '{job.tensor}' differs in shape between the original and the compressed model"
        )
    most = passes.most_positions(job)
    for index in range(samples):
        if passes.takes(job, first + index):
            digest = hashlib.sha256(job.key).digest()
            rng = np.random.default_rng([passes.sampling.seed, first + index, *digest])
            _add(accumulator, job.conv, [each[index] for each in activations], most, rng)


def _add(
    accumulator: Sums,
    conv: ConvSpec,
    images: Sequence[Images],
    most: int,
    rng: np.random.Generator,
) -> None:
    """Add one image, as every model sees it: ``(pieces, C, *spatial)``, or ``(pieces, ..., C)``."""
    pieces, *shape = images[0].shape
    each = math.prod(_sizes(conv, shape)[1])
    chosen = choose_positions(pieces * each, most, rng)
    patches = [_patches(image, conv, chosen, each) for image in images]
    accumulator.add(
        patches[-1], positions=pieces * each, original=patches[0] if len(patches) > 1 else None
    )


def _patches(
    image: Images, conv: ConvSpec, positions: NDArray[np.int64], each: int
) -> NDArray[np.float64]:
    """Return the patches of an image whose pieces have `each` output positions."""
    if not conv.kernel:
        return image.reshape(-1, image.shape[-1])[positions][None].astype(np.float64)
    found = [
        extract_patches(piece, conv, positions[positions // each == number] - number * each)
        for number, piece in enumerate(image)
    ]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _activations(session: Session, batch: Batch, tensors: Sequence[str]) -> dict[str, Images]:
    wanted = [name for name in tensors if name not in batch.feeds]
    return {**batch.feeds, **session.run(batch.feeds, wanted)} if wanted else batch.feeds


def rows_of(batch: Batch, dataset: Dataset) -> int:
    """Return the number of images that a batch feeds."""
    batched = batched_inputs(dataset.inputs)
    return next(len(batch.feeds[name]) for name, carries in batched.items() if carries)


def by_image(name: str, value: Images, rows: int) -> Images:
    """Return a tensor of `rows` images as ``(images, pieces, ...)``: several may come of an image.

    Raises
    ------
    DataError
        It has no axis of images, or holds NaN or Inf.
    """
    if value.ndim < 2 or len(value) == 0 or len(value) % rows:
        raise DataError(
            f"its input '{name}' of shape {list(value.shape)} has no axis of {rows} images; "
            "keep this layer"
        )
    if not np.isfinite(value).all():
        raise DataError(
            f"NaN or Inf in its input '{name}'; check the preprocessing, and the model on these "
            "inputs"
        )
    return value.reshape(rows, -1, *value.shape[1:])
