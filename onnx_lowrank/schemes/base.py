"""The role every low-rank scheme plays: ranks in, cost and factors out.

A scheme is a structure with its ranks; `Factors` are the values of that structure. Lowering keys on
the class of the factors alone, so a better fitting algorithm changes no lowering.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.instances import Random
from onnx_lowrank.schemes.structure import Factors, Fit, Weight, relative_error

__all__ = [
    "Factors",
    "Fit",
    "Rank",
    "Scheme",
    "Weight",
    "check_finite",
    "lacks",
    "nearest_divisor",
    "relative_error",
    "spelled",
]

RESERVED = ("dense", "keep")  # words of plans


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
    structures: ClassVar[tuple[type[Factors], ...]]  # classes of the factors that a fit may give
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
    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return factors of the shapes that a fit has, without a fit.

        Parameters
        ----------
        conv : ConvSpec
            The layer.
        rng : numpy.random.Generator or None
            Gives the values; see `onnx_lowrank.schemes.instances`.

        Returns
        -------
        tuple of Factors
            One for each arrangement that a fit may come out with: mostly one.
        """

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


def lacks(scheme: type[Scheme]) -> str | None:
    """Return in a sentence what a scheme lacks to be one of the list, or None.

    Parameters
    ----------
    scheme : type
        The scheme.
    """
    name = getattr(scheme, "name", "")
    if not re.fullmatch(r"[A-Za-z][\w-]*", name) or name in RESERVED:
        return (
            f"{scheme.__name__} needs a name: letters, digits and hyphens, "
            f"and not {' or '.join(map(repr, RESERVED))}, which plans use"
        )
    if missing := sorted(scheme.__abstractmethods__):
        return f"{name} does not define {', '.join(missing)}"
    if not scheme.rank_names():
        return f"{name} has no ranks; make it a frozen dataclass with an integer for each"
    structures = getattr(scheme, "structures", ())
    if not structures:
        return f"{name} does not say the classes of its factors; list them in 'structures'"
    names = [each.__name__ for each in structures]
    if twice := [each for each in names if names.count(each) > 1]:
        return f"{name} has two structures called {twice[0]}; rename one"
    return next(filter(None, (_structure_lacks(name, each) for each in structures)), None)


def _structure_lacks(scheme: str, structure: type[Factors]) -> str | None:
    what = f"{structure.__name__}, a structure of {scheme},"
    if not issubclass(structure, Factors):
        return f"{what} is no subclass of Factors"
    if missing := sorted(structure.__abstractmethods__):
        return f"{what} does not define {', '.join(missing)}"
    if not fields(structure):
        return f"{what} has no arrays; make it a frozen dataclass of arrays"
    return None


def check_finite(weight: Weight) -> Weight:
    """Return the weight as float64; raise SchemeError where it has NaN or Inf."""
    if not np.isfinite(weight).all():
        raise SchemeError("its weight has NaN or Inf; repair the model, or keep this layer")
    return np.asarray(weight, np.float64)
