"""A user's own figure of merit of a model's outputs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.cache import key_of
from onnx_lowrank.data.feeds import import_callable
from onnx_lowrank.errors import DataError

Outputs = Mapping[str, NDArray[Any]]
ScoreSource = str | Callable[..., float]


@dataclass(frozen=True, eq=False)
class Score:
    """A callable that says how good the outputs of a model are: the higher, the better.

    It is called as ``function(outputs, reference, labels)``: the outputs by name of the model that
    is evaluated, those of the original model, and the labels, ``(samples,)`` of int64, or None
    where there are none. Each output holds all samples of the data set, in their order, along axis
    0; one without such an axis is left out. The original is evaluated too, with its outputs in both
    places.

    Attributes
    ----------
    name : str
        What to call it in messages.
    function : callable
        The callable.
    """

    name: str
    function: Callable[..., Any]

    @classmethod
    def open(cls, source: ScoreSource) -> Score:
        """Load ``"module:callable"``, or take a callable itself.

        Raises
        ------
        DataError
            The module cannot be imported or has no such callable.
        """
        if callable(source):
            return cls(getattr(source, "__name__", type(source).__name__), source)
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", source):
            raise DataError(f"cannot read the score '{source}'; give module:callable")
        return cls(source, import_callable(source, "score(outputs, reference, labels)"))

    @property
    def digest(self) -> str | None:
        """A hash of the source that the callable comes from; None where that cannot be read."""
        if ":" not in self.name:  # given as an object: what it holds cannot be told
            return None
        try:
            source = inspect.getsource(inspect.getmodule(self.function) or self.function)
        except (OSError, TypeError):
            return None
        return key_of(self.name, source)

    def __call__(
        self, outputs: Outputs, reference: Outputs, labels: NDArray[np.int64] | None
    ) -> float:
        """Return the score.

        Raises
        ------
        DataError
            The callable fails, or returns anything but a finite number.
        """
        try:
            value = self.function(_read_only(outputs), _read_only(reference), labels)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's callable: anything, sys.exit too
            raise DataError(
                f"the score '{self.name}' failed: {type(error).__name__}: {error}; repair it"
            ) from error
        try:
            number = np.asarray(value)
        except KeyboardInterrupt:
            raise
        except BaseException:  # an object that refuses to be an array
            number = np.asarray(None)
        if number.ndim != 0 or number.dtype.kind not in "iuf":
            raise DataError(
                f"the score '{self.name}' returned a {type(value).__name__}; "
                "it should return one number"
            )
        if not np.isfinite(number):
            raise DataError(
                f"the score '{self.name}' returned {float(number)}; it should return a finite "
                "number for any outputs"
            )
        return float(number)


class OutputRows:
    """The outputs of a model over a data set, put together from those of batches."""

    def __init__(self) -> None:
        self._rows: dict[str, list[NDArray[Any]]] = {}
        self._partial: set[str] = set()

    def add(self, outputs: Outputs, samples: int) -> None:
        """Add the outputs of a batch of so many samples."""
        for name, value in outputs.items():
            if value.ndim and len(value) == samples:
                self._rows.setdefault(name, []).append(value)
            else:
                self._partial.add(name)

    def result(self) -> dict[str, NDArray[Any]]:
        """Return the outputs that have one row for each sample.

        Raises
        ------
        DataError
            There is none, or samples differ in the size of an output.
        """
        found = {}
        for name, rows in self._rows.items():
            if name in self._partial:
                continue
            if len({row.shape[1:] for row in rows}) > 1:
                raise DataError(
                    f"output '{name}' differs in size between samples, of which a score cannot be "
                    "told; give samples of one size"
                )
            found[name] = np.concatenate(rows)
        if not found:
            raise DataError("no output has one row for each sample, of which a score could be told")
        return found


def _read_only(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Return views that a callable cannot write to: they are used again."""
    views = {name: value.view() for name, value in outputs.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
