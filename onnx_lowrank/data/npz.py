"""Samples from the arrays of an .npz file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from onnx_lowrank.data.archive import Archive
from onnx_lowrank.data.dataset import NAMED, Sample, check_shape
from onnx_lowrank.data.labels import check_labels
from onnx_lowrank.errors import DataError, suggest
from onnx_lowrank.runtime import TensorInfo


class NpzFile:
    """Arrays by input name, one row for each sample, read row by row; pickled arrays are refused.

    Parameters
    ----------
    path : Path
        The file. An array called ``labels`` holds the classes, unless an input has that name. With
        a single input, the only other array is its data whatever it is called.
    inputs : sequence of TensorInfo
        The model's inputs.
    batched : mapping of str to bool
        Which of them have one row per sample; the others are fed whole.
    labels_from : str or None
        Name of the array of labels; ``"none"`` ignores ``labels``.
    limit : int or None
        With fewer samples wanted than there are, a random subset is taken, in the file's order.
    seed : int
        Seed of the subset.
    encoded : bool
        Whether the arrays are images that become inputs of other sizes.

    Raises
    ------
    DataError
        The file is unreadable, an array is missing, unknown, or of another length than the others.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[TensorInfo],
        batched: Mapping[str, bool],
        *,
        labels_from: str | None,
        limit: int | None,
        seed: int,
        encoded: bool = False,
    ) -> None:
        self.skipped: list[str] = []
        self._archive = archive = Archive(path)
        names = [info.name for info in inputs]
        label = _label_name(path, archive.names, names, labels_from)
        ignored = "labels" if labels_from == "none" and "labels" not in names else None
        data = {n: n for n in archive.names if n not in (label, ignored)}
        if len(names) == 1 and len(data) == 1:
            data = {names[0]: next(iter(data.values()))}
        for name in names:
            if name not in data:
                raise DataError(
                    f"{path} has no array '{name}' for that input{suggest(name, data)}; "
                    f"it has {_listed(data)}"
                )
        for name in data:
            if name not in names:
                raise DataError(
                    f"array '{name}' in {path} is neither an input ({_listed(names)}) nor the "
                    "labels; remove it, or name the array of labels"
                )
        self._rows = {n: archive.member(data[n]) for n in names if batched[n]}
        self._constants = {
            n: archive.whole(archive.member(data[n])) for n in names if not batched[n]
        }
        for member in self._rows.values():
            if not member.shape:
                raise DataError(
                    f"array '{member.name}' in {path} has no axis of samples; add one in front"
                )
        if not encoded:
            self._check_shapes(inputs)
        lengths = {m.name: m.shape[0] for m in self._rows.values()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"'{n}' {length}" for n, length in lengths.items())
            raise DataError(f"the arrays in {path} differ in their number of samples: {told}")
        count = next(iter(lengths.values()), 1)
        self._labels = (
            None
            if label is None
            else check_labels(
                archive.whole(archive.member(label)), count, f"array '{label}' in {path}"
            )
        )
        self._chosen: Sequence[int] = range(count)
        if limit is not None and limit < count:
            chosen = np.random.default_rng(seed).choice(count, limit, replace=False)
            self._chosen = np.sort(chosen).tolist()
        self._count = count

    def _check_shapes(self, inputs: Sequence[TensorInfo]) -> None:
        """Raise DataError where samples do not fit: before one of them is read."""
        for info in inputs:
            if member := self._rows.get(info.name):
                where = f"{self._archive.path.name}, sample 0"
                check_shape(member.shape[1:], info, where, batched=True)

    @property
    def samples(self) -> int:
        """Number of samples in the file."""
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the file's order; raise DataError where the file is damaged."""
        with ExitStack() as stack:
            readers = {
                name: stack.enter_context(closing(self._archive.rows(m, self._chosen)))
                for name, m in self._rows.items()
            }
            for row in self._chosen:
                feeds = {name: next(reader) for name, reader in readers.items()}
                label = None if self._labels is None else int(self._labels[row])
                yield Sample(
                    {**feeds, **self._constants}, label, f"{self._archive.path.name}, sample {row}"
                )


def _label_name(
    path: Path, members: Collection[str], inputs: Sequence[str], labels_from: str | None
) -> str | None:
    if labels_from == "none":
        return None
    if labels_from is None:
        return "labels" if "labels" in members and "labels" not in inputs else None
    if labels_from not in members:
        raise DataError(
            f"{path} has no array '{labels_from}' of labels{suggest(labels_from, members)}"
        )
    return labels_from


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:NAMED]) or "none"
    return shown + (", ..." if len(names) > NAMED else "")
