"""Ranks by what they should achieve: a share of the multiply-adds, or of a spectrum."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.schemes.base import Rank, Scheme, Weight, check_finite

KINDS = ("macs", "energy")


@dataclass(frozen=True)
class Target:
    """What ranks that are not given should achieve.

    Attributes
    ----------
    kind : str
        ``"macs"``: at most this share of the layer's multiply-adds, of its parameters where its
        sizes are unknown. ``"energy"``: at least this share of the squared norm, of the spectrum
        that belongs to each rank.
    share : float
        Above 0, at most 1.
    """

    kind: str
    share: float

    @classmethod
    def parse(cls, kind: str, text: str) -> Target:
        """Read the share of a kind; raise SchemeError where it is none."""
        if re.fullmatch(r"\d*\.?\d+", text) and 0 < float(text) <= 1:
            return cls(kind, float(text))
        raise SchemeError(
            f"'{text[:40]}' is not a share; write {kind}={0.25 if kind == 'macs' else 0.95}, "
            "above 0 and at most 1"
        )

    def resolve(
        self,
        scheme: type[Scheme],
        given: Mapping[str, Rank],
        conv: ConvSpec,
        weight: Callable[[], Weight] | None,
    ) -> Scheme:
        """Return the scheme with its ranks.

        Parameters
        ----------
        scheme : type
            The scheme.
        given : mapping
            The ranks that are given; the target sets the others.
        conv : ConvSpec
            The layer.
        weight : callable, optional
            Gives its weight, ``(F, C / group, *kernel)``; needed for energies.

        Raises
        ------
        SchemeError
            If the scheme does not apply, a given rank is out of range, no rank meets the target,
            or energies are asked for without a weight.
        """
        if reason := scheme.refusal(conv):
            raise SchemeError(reason)
        if self.kind == "macs":
            return self._within_macs(scheme, given, conv)
        if weight is None:
            raise SchemeError(
                "ranks by energy need the layer's weight, which is not at hand here; "
                "write macs=, percentages or counts"
            )
        spectra = scheme.spectra(check_finite(weight()), conv.group)
        ranks = {name: Rank(self._kept(values)) for name, values in spectra.items()}
        return scheme.resolve({**ranks, **given}, conv)

    def _kept(self, spectrum: NDArray[np.float64]) -> int:
        """Return how many leading squared singular values make up the share."""
        reached = np.cumsum(spectrum)
        # A sum differs by rounding from the same sum in another order: all of it is all there is.
        wanted = self.share * reached[-1] * (1 - len(spectrum) * np.finfo(float).eps)
        return int(np.searchsorted(reached, wanted)) + 1

    def _within_macs(
        self, scheme: type[Scheme], given: Mapping[str, Rank], conv: ConvSpec
    ) -> Scheme:
        """Return the largest ranks, in proportion to their limits, that stay within the share."""
        free = [name for name in scheme.rank_names() if name not in given]
        largest = Rank(100, percent=True)
        whole = scheme.resolve({**dict.fromkeys(free, largest), **given}, conv)
        steps = max(getattr(whole, name) for name in free)

        def at(step: int) -> Scheme:
            part = Rank(100 * step / steps, percent=True)
            return scheme.resolve({**dict.fromkeys(free, part), **given}, conv)

        # Ranks rise with the step, and operations with the ranks.
        low, high = 0, steps
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if _cost(at(middle), conv) <= self.share else (low, middle - 1)
            )
        if low == 0:
            least = at(1)
            raise SchemeError(
                f"the smallest ranks, {least.spec}, take {_cost(least, conv):.3g} of its "
                f"multiply-adds, more than {self.share:g}; raise the share or keep this layer"
            )
        return at(low)

    def __str__(self) -> str:
        return f"{self.kind}={self.share:g}"


def _cost(scheme: Scheme, conv: ConvSpec) -> float:
    """Return the share of a layer's multiply-adds, of its parameters where sizes are unknown."""
    new, old = scheme.macs(conv), conv.macs
    if new is None or old is None:
        new, old = scheme.params(conv), conv.params
    return new / old
