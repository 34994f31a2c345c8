"""The layer as it is: no ranks, no error, and what it costs today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes.base import Factors, Fit, Scheme, Weight, check_finite
from onnx_lowrank.schemes.instances import Random, uniform


@dataclass(frozen=True)
class DenseFactors(Factors):
    """The weight itself.

    Attributes
    ----------
    weight : ndarray, shape (F, C / group, *kernel)
    """

    weight: Weight

    def reconstruct(self) -> Weight:
        """Return the weight."""
        return self.weight

    def multilinear(self) -> None:
        """Return None: there is nothing to fit better."""


@dataclass(frozen=True)
class Dense(Scheme):
    """The layer as it is, which forms may write in another way or at another precision."""

    name: ClassVar[str] = "dense"
    structures: ClassVar[tuple[type[Factors], ...]] = (DenseFactors,)

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse nothing."""
        return None

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Raise SchemeError: there are no ranks."""
        raise SchemeError(f"dense has no rank {rank}; write dense")

    def macs(self, conv: ConvSpec) -> int | None:
        """Those of the layer."""
        return conv.macs

    def params(self, conv: ConvSpec) -> int:
        """Those of the layer."""
        return conv.params

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return a weight of the layer's shape."""
        return (DenseFactors(uniform(rng, conv.weight_shape)),)

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Copy the weight, which is exact in every metric."""
        return Fit(DenseFactors(check_finite(weight).copy()), start_error=0.0, error=0.0)
