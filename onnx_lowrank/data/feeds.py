"""Samples from feeds made in Python: iterables, callables, calibration readers."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.data.dataset import Sample
from onnx_lowrank.data.labels import check_labels
from onnx_lowrank.errors import DataError, suggest
from onnx_lowrank.runtime import TensorInfo

Feed = tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]


class FeedStream:
    """Samples of feeds: dicts of arrays by input name, or pairs of such a dict and labels.

    A feed holds any number of samples along axis 0.
    A feed may carry its labels under ``labels`` too, unless an input has that name. A source that
    can be read only once (an iterator, a calibration reader without ``rewind``) is copied to a
    temporary folder at its first pass.

    Parameters
    ----------
    source : iterable, callable or calibration reader
        A callable is called without arguments for each pass; a reader has ``get_next()``, which
        returns None at the end.
    inputs : sequence of TensorInfo
        The model's inputs.
    batched : mapping of str to bool
        Which of them have one row per sample.
    use_labels : bool
        Whether to keep labels.
    limit : int or None
        Number of samples wanted: the first ones.
    """

    def __init__(
        self,
        source: Any,
        inputs: Sequence[TensorInfo],
        batched: Mapping[str, bool],
        *,
        use_labels: bool,
        limit: int | None,
    ) -> None:
        self.skipped: list[str] = []
        self._inputs = tuple(info.name for info in inputs)
        self._batched = batched
        self._use_labels = use_labels
        self._limit = limit
        self._spool: Path | None = None
        self._open, self._once = _opener(source)

    @property
    def samples(self) -> None:
        """Unknown before a pass."""
        return None

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples; raise DataError for a feed that lacks an input or has one too many."""
        for number, (feed, labels) in enumerate(self._stored() if self._once else self._feeds()):
            for row in range(self._rows(feed, number)):
                yield Sample(
                    {n: feed[n][row] if self._batched[n] else feed[n] for n in self._inputs},
                    None if labels is None else int(labels[row]),
                    f"feed {number}, sample {row}",
                )

    def _feeds(self) -> Iterator[Feed]:
        for number, item in enumerate(self._open()):
            feed, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            if not isinstance(feed, Mapping):
                raise DataError(
                    f"feed {number} is a {type(item).__name__}; give a dict of arrays by input "
                    f"name, "
                    "or a pair of that and labels"
                )
            feed = dict(feed)
            if "labels" in feed and "labels" not in self._inputs:
                labels = feed.pop("labels")
            for name in self._inputs:
                if name not in feed:
                    raise DataError(f"feed {number} lacks input '{name}'{suggest(name, feed)}")
            for name in feed:
                if name not in self._inputs:
                    near = suggest(name, self._inputs)
                    raise DataError(f"feed {number}: the model has no input '{name}'{near}")
            arrays = {name: _array(feed[name], f"feed {number}, input '{name}'") for name in feed}
            count = self._rows(arrays, number)
            if labels is None or not self._use_labels:
                yield arrays, None
            else:
                yield arrays, check_labels(labels, count, f"feed {number}")

    def _rows(self, feed: Mapping[str, NDArray[Any]], number: int) -> int:
        lengths: dict[str, int] = {}
        for name in self._inputs:
            if self._batched[name]:
                if feed[name].ndim == 0:
                    raise DataError(
                        f"feed {number}: input '{name}' has no axis of samples; add one in front"
                    )
                lengths[name] = feed[name].shape[0]
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"'{n}' {length}" for n, length in lengths.items())
            raise DataError(f"feed {number}: the inputs differ in their number of samples: {told}")
        return next(iter(lengths.values()), 1)

    def _stored(self) -> Iterator[Feed]:
        """Yield the feeds of a source that can be read only once, from a copy on disk."""
        if self._spool is None:
            folder = tempfile.mkdtemp(prefix="onnx_lowrank-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            count = 0
            for number, (feed, labels) in enumerate(self._feeds()):
                arrays = {str(i): feed[name] for i, name in enumerate(self._inputs)}
                if labels is not None:
                    arrays["labels"] = labels
                np.savez(Path(folder, f"{number:09d}.npz"), **arrays)  # type: ignore[arg-type]
                count += self._rows(feed, number)
                if self._limit is not None and count >= self._limit:
                    break
            self._spool = Path(folder)
        for path in sorted(self._spool.iterdir()):
            with np.load(path, allow_pickle=False) as arrays:
                feed = {name: arrays[str(i)] for i, name in enumerate(self._inputs)}
                yield feed, arrays.get("labels")


def load_callable(spec: str) -> Callable[[], Iterator[Any]]:
    """Return a function that iterates what ``module:callable`` returns.

    Whatever goes wrong inside it becomes a DataError.

    Parameters
    ----------
    spec : str
        Dotted module (also one in the working directory), a colon, a callable that takes no
        argument.

    Raises
    ------
    DataError
        The module cannot be imported or has no such callable.
    """
    target = import_callable(spec, "a function that returns an iterable of feeds")

    def feeds() -> Iterator[Any]:
        try:
            yield from _iterate(target())
        except (DataError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # sys.exit too
            raise DataError(
                f"'{spec}' failed: {type(error).__name__}: {error}; repair it"
            ) from error

    return feeds


def import_callable(spec: str, wanted: str) -> Callable[..., Any]:
    """Import ``module:callable``, also from the working directory.

    Parameters
    ----------
    spec : str
        Dotted module, a colon, dotted name of the callable in it.
    wanted : str
        What the callable should be, in a phrase for the error.

    Raises
    ------
    DataError
        The module cannot be imported or has no such callable.
    """
    module_name, _, name = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        target: Any = importlib.import_module(module_name)
        for part in name.split("."):
            target = getattr(target, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's module: anything may go wrong in it, sys.exit too
        raise DataError(
            f"cannot load '{spec}': {type(error).__name__}: {error}; "
            "give an importable module and the name of a function in it"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(target):
        raise DataError(f"'{spec}' is not callable; give {wanted}")
    return cast("Callable[..., Any]", target)


def _opener(source: Any) -> tuple[Callable[[], Iterator[Any]], bool]:
    """Return a function that starts a pass over a source, and whether it can do so only once."""
    if isinstance(source, type):  # a class has the attributes of its instances, but is called
        return lambda: _iterate(source()), False
    if hasattr(source, "get_next"):
        if not callable(getattr(source, "rewind", None)):
            return lambda: iter(source.get_next, None), True

        def rewound() -> Iterator[Any]:
            source.rewind()
            return iter(source.get_next, None)

        return rewound, False
    if isinstance(source, Iterable):
        return lambda: iter(source), isinstance(source, Iterator)
    if callable(source):
        return lambda: _iterate(source()), False
    raise DataError(
        f"cannot read data from a {type(source).__name__}; give a folder of images, an .npz file, "
        "'module:callable', an iterable of feeds or a calibration data reader"
    )


def _iterate(made: Any) -> Iterator[Any]:
    """Iterate what a data callable returned: an iterable of feeds or a calibration reader."""
    if hasattr(made, "get_next"):
        return iter(made.get_next, None)
    if not isinstance(made, Iterable) or isinstance(made, Mapping | str | np.ndarray):
        raise DataError(
            f"the data callable returned a {type(made).__name__}; it should return an iterable of "
            f"feeds"
        )
    return iter(made)


def _array(value: Any, where: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        if not all(isinstance(item, str) for item in array.flat):
            raise DataError(f"{where} holds Python objects; give numbers or strings")
        array = array.astype(np.str_)
    return array
