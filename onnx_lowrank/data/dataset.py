"""A re-iterable stream of batches that fit a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.bounds import check_count
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo
from onnx_lowrank.types import Feeds

DEFAULT_BATCH = 8
NAMED = 5  # how many items a note or an error names


@dataclass(frozen=True)
class Sample:
    """Arrays of one sample, without the batch axis, and what to call it in errors."""

    feeds: Feeds
    label: int | None
    where: str


@dataclass(frozen=True)
class Batch:
    """Inputs for one run of a model.

    Attributes
    ----------
    feeds : dict of str to ndarray
        Input name -> array of the input's own type, samples along axis 0 (constant inputs have no
        such axis).
    samples : int
        How many samples are real. Where a model fixes its batch size, the last batch is filled up
        with copies of its last sample: rows from `samples` on must not be counted.
    labels : ndarray of int64, shape (samples,), or None
        Class of every real sample.
    rows : int
        How many samples are fed, copies included.
    """

    feeds: dict[str, NDArray[Any]]
    samples: int
    labels: NDArray[np.int64] | None
    rows: int

    def without_copies(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a model's tensors of this batch without the rows of copies.

        One whose first axis is not that of the samples is returned as it is.
        """
        return {
            name: value[: self.samples] if value.ndim and len(value) == self.rows else value
            for name, value in outputs.items()
        }


def rows_of(inputs: Sequence[TensorInfo], feeds: Feeds) -> int:
    """Return how many samples the feeds of a model's inputs hold, copies included."""
    batched = batched_inputs(inputs)
    return next(len(value) for name, value in feeds.items() if batched[name])


class Source(Protocol):
    """Where samples come from."""

    @property
    def skipped(self) -> Sequence[str]:
        """One sentence for each unreadable item met so far."""
        ...

    @property
    def samples(self) -> int | None:
        """Number of samples of a pass, None where only a pass can tell."""
        ...

    def __iter__(self) -> Iterator[Sample]: ...


def batched_inputs(inputs: Sequence[TensorInfo]) -> dict[str, bool]:
    """Tell which inputs carry one entry per sample along axis 0.

    The first input of the highest rank does. Another one does too if its leading size is unknown
    or equal to that one's; the rest (scalars, fixed tables) are constant and fed whole with every
    batch.
    """
    if not inputs:
        raise DataError("the model has no inputs; there is nothing to feed it with")
    main = max(inputs, key=lambda info: -1 if info.rank is None else info.rank)
    lead = main.shape[0] if main.shape else None

    def carries(info: TensorInfo) -> bool:
        if info.shape is None or info is main:
            return info.shape != ()
        return bool(info.shape) and (not isinstance(info.shape[0], int) or info.shape[0] == lead)

    return {info.name: carries(info) for info in inputs}


class Dataset:
    """Batches for one model.

    Every pass yields the same ones, and memory does not grow with their number.

    Attributes
    ----------
    inputs : tuple of TensorInfo
        The inputs that the batches are made for.
    batch : int
        Samples per batch: the size that the model fixes, if it does.
    limit : int or None
        Number of samples asked for.
    source : Source
        Where they come from.
    """

    def __init__(
        self,
        source: Source,
        inputs: Sequence[TensorInfo],
        *,
        batch: int | None = None,
        limit: int | None = None,
    ) -> None:
        check_count("the batch size", batch, DataError)
        check_count("the number of samples asked for", limit, DataError)
        self.inputs = tuple(inputs)
        self.limit = limit
        self.source = source
        self._batched = batched_inputs(self.inputs)
        fixed = self._fixed_batch()
        self.batch = fixed or batch or DEFAULT_BATCH
        self._pad = fixed is not None
        for info in self.inputs:
            info.check_size(self.batch if self._batched[info.name] else None)
        if limit is not None and source.samples is not None and source.samples < limit:
            raise DataError(
                f"{limit} samples were asked for, but there are only {source.samples}; "
                "ask for fewer or add data"
            )

    @property
    def samples(self) -> int | None:
        """Number of samples of a pass; None where only a pass can tell.

        An upper bound before unreadable samples are met.
        """
        known = self.source.samples
        if known is None:
            return None
        return known if self.limit is None else min(known, self.limit)

    @property
    def skipped(self) -> tuple[str, ...]:
        """One sentence for each unreadable item that the last pass met and left out."""
        return tuple(self.source.skipped)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence on the unreadable items that the last pass left out; empty without any."""
        if not (skipped := self.skipped):
            return ()
        named = "; ".join(skipped[:NAMED]) + ("; ..." if len(skipped) > NAMED else "")
        return (f"{len(skipped)} unreadable and skipped: {named}",)

    def __len__(self) -> int:
        """Return the number of samples; raise TypeError where only a pass can tell."""
        if self.samples is None:
            raise TypeError(
                "the number of samples of this source is not known before a pass over it"
            )
        return self.samples

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises
        ------
        DataError
            A sample does not fit the model or is not finite; there are no samples, or fewer than
            asked for.
        """
        group: list[Sample] = []
        count = 0
        for sample in self.source:
            fitted = self._fit(sample)
            if group and not self._stackable(group[-1], fitted):
                yield self._stack(group)
                group = []
            group.append(fitted)
            count += 1
            if len(group) == self.batch:
                yield self._stack(group)
                group = []
            if count == self.limit:
                break
        if group:
            yield self._stack(group)
        self._check_count(count)

    def _check_count(self, count: int) -> None:
        skipped = self.source.skipped
        why = f"; {len(skipped)} could not be read, the first: {skipped[0]}" if skipped else ""
        if count == 0:
            raise DataError(f"the data hold no sample{why}; check the source")
        if self.limit is not None and count < self.limit:
            raise DataError(
                f"{self.limit} samples were asked for, but only {count} were found{why}; "
                "ask for fewer or add data"
            )

    def _fixed_batch(self) -> int | None:
        for info in self.inputs:
            if self._batched[info.name] and info.shape and isinstance(info.shape[0], int):
                return info.shape[0]
        return None

    def _fit(self, sample: Sample) -> Sample:
        """Bring a sample's arrays to the model's types and check their shapes and values."""
        feeds = {}
        for info in self.inputs:
            value = sample.feeds[info.name]
            check_shape(value.shape, info, sample.where, batched=self._batched[info.name])
            feeds[info.name] = _cast(value, info, sample.where)
        return Sample(feeds, sample.label, sample.where)

    def _stackable(self, a: Sample, b: Sample) -> bool:
        """Whether two samples can share a batch: equal sizes and equal constants."""
        if (a.label is None) != (b.label is None):
            raise DataError(
                f"{a.where} and {b.where}: only one of them has a label; label all or none"
            )
        return all(
            a.feeds[name].shape == b.feeds[name].shape
            if batched
            else np.array_equal(a.feeds[name], b.feeds[name])
            for name, batched in self._batched.items()
        )

    def _stack(self, group: Sequence[Sample]) -> Batch:
        count = len(group)
        rows = [*group, *[group[-1]] * (self.batch - count)] if self._pad else list(group)
        feeds = {
            name: np.stack([s.feeds[name] for s in rows]) if batched else group[0].feeds[name]
            for name, batched in self._batched.items()
        }
        labels = [s.label for s in group if s.label is not None]
        found = np.array(labels, np.int64) if labels else None
        return Batch(feeds, count, found, rows=len(rows))


def check_shape(found: Sequence[int], info: TensorInfo, where: str, *, batched: bool) -> None:
    """Raise DataError where the sizes of a sample, or of a whole array, do not fit an input."""
    shape = info.shape
    if shape is not None and batched:
        shape = shape[1:]
    if shape is None or (
        len(shape) == len(found)
        and all(not isinstance(d, int) or d == s for d, s in zip(shape, found, strict=True))
    ):
        return
    raise DataError(
        f"{where}: shape {list(found)} does not fit input '{info.name}' {info.describe_shape()}"
        + (" (a sample has no batch axis)" if batched else "")
        + "; check the preprocessing"
    )


def _strings(value: NDArray[Any], info: TensorInfo, where: str) -> NDArray[Any]:
    """Return texts; raise DataError where some are none, such as half of a surrogate pair."""
    try:
        texts = value.astype(np.str_)
        for text in texts.flat:
            text.encode().decode()  # the latter finds code points that do not exist
    except (ValueError, SystemError) as error:  # the latter of Python itself, for some of those
        raise DataError(
            f"{where}: input '{info.name}' takes text, but the data are not: {error}; encode it "
            "as UTF-8"
        ) from error
    return texts


def _cast(value: NDArray[Any], info: TensorInfo, where: str) -> NDArray[Any]:
    """Return `value` in the input's type: exact for integers, rounded but finite for floats."""
    dtype = info.dtype
    if dtype is None:
        raise DataError(f"input '{info.name}' has type {info.type}, which cannot be fed from numpy")
    if dtype.kind == "U" or value.dtype.kind not in "biuf":
        if dtype.kind == "U" and value.dtype.kind in "US":
            return _strings(value, info, where)
        raise DataError(
            f"{where}: input '{info.name}' takes {info.type}, but the data are {value.dtype}; "
            f"convert them"
        )
    with np.errstate(all="ignore"):  # what overflows is found below
        cast = value.astype(dtype, copy=False)
    if dtype.kind == "f":
        if not np.isfinite(cast).all():
            raise DataError(
                f"{where}: NaN or Inf in input '{info.name}' (as {dtype}); remove or repair this "
                f"sample"
            )
    elif not np.array_equal(cast, value):
        raise DataError(
            f"{where}: input '{info.name}' takes {dtype}, which cannot hold its values exactly; "
            f"convert them"
        )
    return cast
