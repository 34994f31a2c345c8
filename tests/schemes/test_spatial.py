"""Separable kernels: exact on separable weights, the better order, and the count of both."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes.spatial import Spatial, SpatialFactors, orders, separate

EPS = float(np.finfo(np.float64).eps)
CONV = ConvSpec(
    in_channels=6,
    out_channels=10,
    kernel=(5, 3),
    strides=(2, 1),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
    input_size=(21, 12),
    output_size=(9, 10),
)


@pytest.mark.parametrize("order", ["column first", "row first"])
def test_planted_factors_are_recovered(order: str) -> None:
    rng = np.random.default_rng(0)
    first, second = ((4, 6, 5, 1), (10, 4, 1, 3)), ((4, 6, 1, 3), (10, 4, 5, 1))
    shapes = first if order == "column first" else second
    weight = SpatialFactors(*(rng.standard_normal(shape) for shape in shapes)).reconstruct()
    assert weight.shape == (10, 6, 5, 3)
    found = separate(weight, 4, "column first" if order == "column first" else "row first")
    assert (found.first.shape, found.second.shape) == shapes
    # A projection onto a basis of at most 10 * 5 rows.
    error = np.linalg.norm(weight - found.reconstruct()) / np.linalg.norm(weight)
    assert error <= 4 * 50 * EPS


@pytest.mark.parametrize("order", ["column first", "row first"])
def test_the_dense_weight_is_one_conv_after_the_other(order: str) -> None:
    rng = np.random.default_rng(1)
    shapes = (
        [(2, 3, 4, 1), (5, 2, 1, 3)] if order == "column first" else [(2, 3, 1, 3), (5, 2, 4, 1)]
    )
    a, b = (rng.standard_normal(shape) for shape in shapes)
    dense = SpatialFactors(a, b).reconstruct()
    for x in range(4):
        for y in range(3):
            if order == "column first":
                one, two = a[:, :, x, 0], b[:, :, 0, y]
            else:
                one, two = a[:, :, 0, y], b[:, :, x, 0]
            np.testing.assert_allclose(dense[:, :, x, y], two @ one, rtol=0, atol=16 * EPS)


def test_the_order_is_the_cheaper_one_and_the_better_of_equals() -> None:
    assert orders((10, 6, 5, 3)) == ("column first",)  # 6 * 5 + 10 * 3 < 6 * 3 + 10 * 5
    assert orders((10, 6, 3, 5)) == ("row first",)
    assert orders((10, 6, 3, 3)) == orders((8, 8, 5, 3)) == ("column first", "row first")
    rng = np.random.default_rng(2)
    for order in ("column first", "row first"):
        shapes = [(2, 6, 3, 1), (10, 2, 1, 3)]
        if order == "row first":
            shapes = [(2, 6, 1, 3), (10, 2, 3, 1)]
        weight = SpatialFactors(*(rng.standard_normal(shape) for shape in shapes)).reconstruct()
        result = Spatial(2).fit(weight, metric=Frobenius(), rng=rng)
        assert cast(SpatialFactors, result.factors).first.shape == shapes[0]
        assert result.error <= 4 * 30 * EPS


def test_operations_of_both_stages_where_they_run() -> None:
    # The column has the stride of its axis, the row comes after it at full width.
    assert Spatial(4).macs(CONV) == 4 * (6 * 5 * 9 * 12 + 10 * 3 * 9 * 10)
    assert Spatial(4).params(CONV) == 4 * (6 * 5 + 10 * 3)
    # Either order for a square kernel: the larger figure.
    square = replace(CONV, kernel=(3, 3))
    column, row = (6 * 3 * n + 10 * 3 * 9 * 10 for n in (9 * 12, 21 * 10))
    assert Spatial(4).macs(square) == 4 * max(column, row)


@pytest.mark.parametrize(
    ("conv", "sentence"),
    [
        (replace(CONV, group=2), "grouped Conv"),
        (replace(CONV, kernel=(5, 1)), "nothing to separate"),
        (replace(CONV, kernel=(3, 3, 3)), "nothing to separate"),
        (replace(CONV, kernel=()), "nothing to separate"),
    ],
)
def test_refusals(conv: ConvSpec, sentence: str) -> None:
    assert sentence in (Spatial.refusal(conv) or "")
