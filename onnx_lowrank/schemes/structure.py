"""What a structure is: a class whose values stand for a weight, and how it is linear in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.types import Array

Weight = NDArray[np.float64]
Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Factors(ABC):
    """Values of a low-rank structure.

    Subclasses are frozen dataclasses whose fields are arrays, numbers in float64 and indices in
    int64: so they are stored and read without another word. Lowering keys on the class.
    """

    @abstractmethod
    def reconstruct(self) -> Weight:
        """Return the dense weight that the factors stand for, ``(F, C / group, *kernel)``."""

    @abstractmethod
    def multilinear(self) -> Multilinear | None:
        """Return the factors as an expression, by which they are fitted in every metric.

        None if there is none: a fit is then no better than the scheme itself makes it.
        """

    def output_map(self) -> OutputMap | None:
        """Return the last stage, where every output sees all that the stages before it give."""
        return None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def cancellation(self) -> float | None:
        """Return how much larger the largest term of a sum is than the weight; None if no sum.

        A layer in float32 loses about this many times 6e-8 to it.
        """
        return None


@dataclass(frozen=True, eq=False)
class OutputMap:
    """The last stage of a structure as a matrix: ``W~ = weight @ inputs``.

    Attributes
    ----------
    weight : ndarray, shape (F, M)
        The last stage.
    inputs : ndarray, shape (M, C, *kernel)
        What it maps, as weights of a layer of its own.
    rebuild : callable
        Gives the factors with another last stage, shape (F, M).
    """

    weight: Array
    inputs: Weight
    rebuild: Callable[[Array], Factors]


@dataclass(frozen=True)
class Fit:
    """Factors and how well they fit.

    Attributes
    ----------
    factors : Factors
        The fitted factors.
    start_error, error : float
        Relative error in the metric, ``|W - W~| / |W|``, of the published construction and of the
        final factors.
    """

    factors: Factors
    start_error: float
    error: float


@dataclass(frozen=True)
class Multilinear:
    """``W~ = scatter(einsum(subscripts, *arrays))``, linear in each array.

    Attributes
    ----------
    subscripts : tuple of str
        Indices of each array, then those of the result, in small letters. ``c`` stands for input
        channels and ``p`` for taps of the kernel, which metrics weigh; other letters are free.
        Letters that the result lacks are ranks. Letters that all arrays share with the result are
        blocks, and stand in front of all others everywhere.
    arrays : tuple of ndarray
        The factors.
    gather, scatter : callable
        From a weight ``(F, C, *kernel)`` to the result's indices, and back: a permutation of
        entries, so that each is the other's adjoint.
    rebuild : callable
        Factors of other arrays of the same shapes.
    channels : ndarray of int64, optional
        Which input channels ``c`` runs over in each block, the indices of blocks in front (of
        length 1 where all are the same); all in order if not given.
    """

    subscripts: tuple[str, ...]
    arrays: Arrays
    gather: Callable[[Weight], Array]
    scatter: Callable[[Array], Weight]
    rebuild: Callable[[Arrays], Factors]
    channels: NDArray[np.int64] | None = None

    @property
    def blocks(self) -> str:
        """The indices in front that all arrays share with the result."""
        *inputs, result = self.subscripts
        return "".join(letter for letter in result if all(letter in s for s in inputs))

    def with_array(self, index: int, array: Array) -> Multilinear:
        """Return the expression with one array replaced."""
        arrays = (*self.arrays[:index], array, *self.arrays[index + 1 :])
        return replace(self, arrays=arrays)

    def dense(self) -> Weight:
        """Return the weight that the arrays stand for."""
        *inputs, result = self.subscripts
        return self.scatter(np.einsum(f"{','.join(inputs)}->{result}", *self.arrays, optimize=True))

    def adjoint(self, index: int, weight: Weight) -> Array:
        """Return the gradient of ``<weight, dense()>`` by one array."""
        *inputs, result = self.subscripts
        target = inputs.pop(index)
        others = (*self.arrays[:index], *self.arrays[index + 1 :])
        expression = f"{','.join([result, *inputs])}->{target}"
        return np.asarray(np.einsum(expression, self.gather(weight), *others, optimize=True))


def relative_error(squared_error: float, squared_norm: float) -> float:
    """Return ``|W - W~| / |W|`` from squared norms; 0 for a zero weight."""
    return float(np.sqrt(max(squared_error, 0.0) / squared_norm)) if squared_norm > 0 else 0.0
