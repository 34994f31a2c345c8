"""A scheme from the outside: a train of three cores; no file of the package knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.rewriting.lowering.standard import lower
from onnx_lowrank.schemes import Factors, Fit, Scheme
from onnx_lowrank.schemes.base import Weight, check_finite, relative_error
from onnx_lowrank.schemes.instances import Random, uniform
from onnx_lowrank.schemes.structure import Arrays, Multilinear

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrainFactors(Factors):
    """``W[f, c, x, y] = sum_ab last[f, b] rows[b, a, y] columns[a, c, x]``: three Convs in a row.

    Attributes
    ----------
    columns : ndarray, shape (R1, C, X)
    rows : ndarray, shape (R2, R1, Y)
    last : ndarray, shape (F, R2)
    """

    columns: Array
    rows: Array
    last: Array

    def reconstruct(self) -> Weight:
        """Return the dense weight, ``(F, C, X, Y)``."""
        train = (self.last, self.rows, self.columns)
        return np.asarray(np.einsum("fb,bay,acx->fcxy", *train, optimize=True))

    def multilinear(self) -> Multilinear:
        """Return the train as it stands."""

        def rebuild(arrays: Arrays) -> TrainFactors:
            return TrainFactors(*arrays)

        arrays = (self.columns, self.rows, self.last)
        subscripts = ("acx", "bay", "fb", "fcxy")
        return Multilinear(subscripts, arrays, lambda w: w, lambda w: w, rebuild)


@dataclass(frozen=True)
class TensorTrain(Scheme):
    """X x 1 to R1 channels, 1 x Y to R2 channels, 1x1 to all (Oseledets 2011, algorithm 1)."""

    R1: int
    R2: int

    name: ClassVar[str] = "train"
    structures: ClassVar[tuple[type[Factors], ...]] = (TrainFactors,)

    @classmethod
    def refusal(cls, conv: ConvSpec) -> str | None:
        """Refuse grouped Convs and kernels that are not two-dimensional."""
        if conv.group != 1 or len(conv.kernel) != 2:
            return "a train takes Convs of one group with two spatial axes"
        return None

    @classmethod
    def limit(cls, rank: str, chosen: Mapping[str, int], conv: ConvSpec) -> int:
        """Return the rank of the matrix that is cut there."""
        x, y = conv.kernel
        if rank == "R1":
            return min(conv.in_channels * x, conv.out_channels * y)
        return min(chosen["R1"] * y, conv.out_channels)

    def macs(self, conv: ConvSpec) -> int | None:
        """``C X R1 N'M + (R1 Y R2 + R2 F) N'M'``."""
        if conv.input_size is None or conv.output_size is None or conv.output_positions is None:
            return None
        x, y = conv.kernel
        first = conv.in_channels * x * self.R1 * conv.output_size[0] * conv.input_size[1]
        rest = self.R2 * (self.R1 * y + conv.out_channels)
        return first + rest * conv.output_positions

    def params(self, conv: ConvSpec) -> int:
        """``C X R1 + R1 Y R2 + R2 F``."""
        x, y = conv.kernel
        rest = self.R2 * (self.R1 * y + conv.out_channels)
        return conv.in_channels * x * self.R1 + rest

    def instances(self, conv: ConvSpec, rng: Random) -> tuple[Factors, ...]:
        """Return three cores."""
        x, y = conv.kernel
        return (
            TrainFactors(
                uniform(rng, [self.R1, conv.in_channels, x]),
                uniform(rng, [self.R2, self.R1, y]),
                uniform(rng, [conv.out_channels, self.R2]),
            ),
        )

    def fit(
        self, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
    ) -> Fit:
        """Cut an SVD off at each joint of the train, from the inputs on."""
        f, c, x, y = check_finite(weight).shape
        u, s, v = np.linalg.svd(weight.transpose(1, 2, 3, 0).reshape(c * x, y * f), False)
        columns, rest = u[:, : self.R1], s[: self.R1, None] * v[: self.R1]
        u, s, v = np.linalg.svd(rest.reshape(self.R1 * y, f), False)
        rows, last = u[:, : self.R2], s[: self.R2, None] * v[: self.R2]
        factors = TrainFactors(
            columns.T.reshape(self.R1, c, x).copy(),
            rows.reshape(self.R1, y, self.R2).transpose(2, 0, 1).copy(),
            last.T.copy(),
        )
        squared = metric.squared_norm(weight - factors.reconstruct())
        error = relative_error(squared, metric.squared_norm(weight))
        return Fit(factors, error, error)


@lower.register
def _(
    factors: TrainFactors,
    conv: ConvSpec,
    bias: Array | None,
    builder: SubgraphBuilder,
    *,
    forms: object = None,
) -> None:
    del forms

    def along(axis: int, x: str, weight: Array, name: str) -> str:
        window = conv.window.along([place == axis for place in range(2)])
        return builder.conv(x, weight, window=window, name=name)

    x = along(0, builder.input, factors.columns[..., None], "columns")
    x = along(1, x, factors.rows[:, :, None], "rows")
    builder.output(builder.conv(x, factors.last[..., None, None], bias=bias, name="last"))
