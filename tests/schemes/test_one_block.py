"""Tucker-2 and CP are the block schemes with one block, and count as them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes import SchemeSpec
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD
from onnx_lowrank.schemes.factors import BlockCPFactors, BlockTucker2Factors
from onnx_lowrank.schemes.one_block import CP, Tucker2

EPS = float(np.finfo(np.float64).eps)
CONV = ConvSpec(
    in_channels=10,
    out_channels=14,
    kernel=(3, 3),
    strides=(2, 2),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
    input_size=(9, 9),
    output_size=(4, 4),
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_counts() -> None:
    # 1x1 at the input's 81 positions, the rest at the output's 16.
    assert Tucker2(4, 5).macs(CONV) == 10 * 4 * 81 + (4 * 9 * 5 + 5 * 14) * 16
    assert Tucker2(4, 5).params(CONV) == 10 * 4 + 4 * 9 * 5 + 5 * 14
    assert CP(6).macs(CONV) == 6 * (10 * 81 + (9 + 14) * 16)
    assert CP(6).params(CONV) == 6 * (10 + 9 + 14)


def test_channels_keep_their_order() -> None:
    weight = rng().standard_normal((14, 10, 3, 3))
    for scheme in (Tucker2(4, 5), CP(6)):
        factors = scheme.fit(weight, metric=Frobenius(), rng=rng()).factors
        blocks = cast(BlockTucker2Factors | BlockCPFactors, factors)
        assert blocks.input_clusters.tolist() == [list(range(10))]
        assert blocks.output_clusters.tolist() == [list(range(14))]


def test_tucker2_is_the_bicluster_fit_with_one_block() -> None:
    weight = rng().standard_normal((14, 10, 3, 3))
    one = Tucker2(4, 5).fit(weight, metric=Frobenius(), rng=rng())
    other = BiclusterSVD(1, 1, 4, 5).fit(weight, metric=Frobenius(), rng=rng())
    assert np.array_equal(one.factors.reconstruct(), other.factors.reconstruct())


@pytest.mark.parametrize("spec", ["tucker2:R1=100%,R2=100%", "cp:R=100%"])
def test_exact_at_full_rank(spec: str) -> None:
    weight = rng().standard_normal((14, 10, 3, 3))
    result = SchemeSpec.parse(spec).resolve(CONV).fit(weight, metric=Frobenius(), rng=rng())
    # Two square orthogonal matrices, of up to 14 columns, applied back and forth.
    assert result.error <= 4 * 14 * EPS


def test_cp_does_as_well_as_from_the_published_start() -> None:
    for seed in range(3):
        weight = np.random.default_rng(seed).standard_normal((14, 10, 3, 3))
        one = CP(12).fit(weight, metric=Frobenius(), rng=rng())
        other = BiclusterOuter(1, 1, 12).fit(weight, metric=Frobenius(), rng=rng())
        assert one.error < one.start_error
        # Alternating least squares has many ends; those of one weight lie close together.
        assert one.error <= 1.05 * other.error


def test_cp_error_falls_to_nothing_with_rank() -> None:
    weight = rng().standard_normal((3, 2, 3, 3))
    conv = replace(CONV, in_channels=2, out_channels=3)
    errors = [
        SchemeSpec.parse(f"cp:R={rank}")
        .resolve(conv)
        .fit(weight, metric=Frobenius(), rng=rng())
        .error
        for rank in (2, 4, 6)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] == 0.0  # 2 x 3 terms of unit vectors and the weight's own entries
