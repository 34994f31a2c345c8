"""The roles every low-rank scheme plays: ranks in, cost and factors out.

A scheme is a structure with its ranks; `Factors` are the values of that structure. Lowering keys on
the class of the factors alone, so a better fitting algorithm changes no lowering.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.metrics.base import Metric

if TYPE_CHECKING:
    from onnx_lowrank.schemes.problem import LayerProblem

Weight = NDArray[np.float64]


class Factors(Protocol):
    """Values of a low-rank structure, in float64."""

    def reconstruct(self) -> Weight:
        """Return the dense weight that the factors stand for, ``(F, C / group, *kernel)``."""
        ...


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
class Rank:
    """A rank as a user writes it: a count, or a percentage of the largest useful value."""

    value: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Rank:
        """Read ``"64"`` or ``"50%"``; raise SchemeError for anything else."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", text)
        if match and 0 < float(match[1]) <= 100:
            return cls(float(match[1]), percent=True)
        if re.fullmatch(r"[1-9][0-9]{0,17}", text):  # no axis is longer
            return cls(int(text))
        raise SchemeError(
            f"'{text[:40]}' is not a rank; write a count such as 64, or a percentage such as 50%"
        )

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else f"{int(self.value)}"


@dataclass(frozen=True)
class Scheme(ABC):
    """A low-rank structure with its ranks.

    Subclasses are frozen dataclasses with one field per rank, a positive int named as in a
    specification, e.g. ``Monochromatic(C=6)``.
    """

    name: ClassVar[str]
    clusters: ClassVar[tuple[str, ...]] = ()  # ranks that a target does not set
    # Whether its fit in a covariance metric works on the moment itself, not on products with it.
    needs_moment: ClassVar[bool] = True

    @property
    def spec(self) -> str:
        """The specification a user would type, e.g. ``"mono:C=6"``."""
        return spelled(self.name, [f"{k}={v}" for k, v in asdict(self).items()])

    @classmethod
    def rank_names(cls) -> tuple[str, ...]:
        """Names of the ranks, in the order of a specification."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    @abstractmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Return in a clause why no rank makes this scheme apply to `conv`; None if it applies."""

    @classmethod
    @abstractmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Return the largest useful value of `rank`, of which percentages are taken.

        Parameters
        ----------
        rank : str
            A name of `rank_names`.
        chosen : mapping
            The ranks before it in `rank_names`, already resolved.
        conv : ConvSpec
            The layer.
        """

    @classmethod
    def spectra(cls, weight: Weight, group: int) -> Mapping[str, NDArray[np.float64]]:
        """Return, for every rank, the squared singular values of which it keeps the leading ones.

        Parameters
        ----------
        weight : ndarray, shape (F, C / group, *kernel)
            The layer's weight.
        group : int
            Its groups.

        Raises
        ------
        SchemeError
            If the ranks do not cut off spectra.
        """
        raise SchemeError(
            f"the ranks of {cls.name} do not cut off a spectrum, of which energy would be a share; "
            "write macs=, percentages or counts"
        )

    @classmethod
    def resolve(cls, ranks: Mapping[str, Rank], conv: ConvSpec) -> Self:
        """Turn counts and percentages into ranks that fit `conv`.

        A percentage becomes the nearest admissible count, a count is taken as it stands.

        Raises
        ------
        SchemeError
            If the scheme does not apply, or a rank is out of range.
        """
        if reason := cls.refusal(conv):
            raise SchemeError(reason)
        chosen: dict[str, int] = {}
        for rank_name in cls.rank_names():
            rank, limit = ranks[rank_name], cls.limit(rank_name, chosen, conv)
            if rank.percent:
                chosen[rank_name] = cls.snap(rank_name, rank.value / 100 * limit, limit)
                continue
            count = int(rank.value)
            if count > limit:
                raise SchemeError(f"{rank_name}={count} is out of range; the most here is {limit}")
            if (snapped := cls.snap(rank_name, count, limit)) != count:
                raise SchemeError(
                    f"{rank_name}={count} does not divide {limit} into equal clusters; "
                    f"the nearest that does is {snapped}"
                )
            chosen[rank_name] = count
        return cls(**chosen)

    @classmethod
    def snap(cls, rank: str, value: float, limit: int) -> int:
        """Return the admissible count nearest to `value`; here any from 1 to `limit`."""
        return min(max(round(value), 1), limit)

    @abstractmethod
    def macs(self, conv: ConvSpec) -> int | None:
        """Return the multiply-adds of one image, every stage at its resolution; None if unknown."""

    @abstractmethod
    def params(self, conv: ConvSpec) -> int:
        """Return the number of weights in all factors, without the bias."""

    @abstractmethod
    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Fit the factors to a weight.

        Parameters
        ----------
        weight : ndarray, shape (F, C / group, *kernel), float64
            The dense weight; not changed.
        metric : Metric
            The inner product whose norm of the error is minimised.
        rng : numpy.random.Generator
            The only source of randomness.
        group : int
            Number of groups of the layer; 1 for a scheme that refuses grouped layers.

        Returns
        -------
        Fit
            The published construction refined by least squares, which never raises the error.

        Raises
        ------
        SchemeError
            If the weight has NaN or Inf.
        """

    def fit_in_covariance(self, problem: LayerProblem, rng: np.random.Generator) -> Fit | None:
        """Fit the factors in the metric of data, by an algorithm made for it.

        Parameters
        ----------
        problem : LayerProblem
            The layer, with what its fits share; its weight is finite.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        Fit or None
            None where there is no such algorithm: `fit` is then refined by general least squares.
        """
        return None


def spelled(name: str, ranks: Sequence[str]) -> str:
    """Return a specification: a scheme's name, and its ranks behind a colon if it has any."""
    return f"{name}:{','.join(ranks)}" if ranks else name


def nearest_divisor(value: float, number: int) -> int:
    """Return the divisor of `number` nearest to `value`, the smaller one of a tie."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: (abs(d - value), d))


def check_finite(weight: Weight) -> Weight:
    """Return the weight as float64; raise SchemeError where it has NaN or Inf."""
    if not np.isfinite(weight).all():
        raise SchemeError("its weight has NaN or Inf; repair the model, or keep this layer")
    return np.asarray(weight, np.float64)


def relative_error(squared_error: float, squared_norm: float) -> float:
    """Return ``|W - W~| / |W|`` from squared norms; 0 for a zero weight."""
    return float(np.sqrt(max(squared_error, 0.0) / squared_norm)) if squared_norm > 0 else 0.0
