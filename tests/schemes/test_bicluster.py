"""Bicluster fits: structure, planted blocks, start and refinement, and the published counts."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from builders import fit_scheme
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes import SchemeSpec
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD, bicluster
from onnx_lowrank.schemes.factors import BlockCPFactors, BlockTucker2Factors, gather_blocks

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
CONV2 = ConvSpec(
    in_channels=96,
    out_channels=256,
    kernel=(5, 5),
    strides=(2, 2),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
    input_size=(55, 55),
    output_size=(26, 26),
)
CONV3 = replace(
    CONV2,
    in_channels=256,
    out_channels=512,
    kernel=(3, 3),
    strides=(1, 1),
    input_size=(12, 12),
    output_size=(12, 12),
)
CONV4 = replace(CONV3, in_channels=512, out_channels=1024)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(kind: str, seed: int) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return a weight of 2 x 2 blocks of low rank, and the cluster of every input and output.

    Blocks of one row or column share their basis: else the channels of a cluster would span as many
    dimensions as its blocks have together, and not be a cluster of that rank.
    """
    random = rng(seed)
    f, c, p, k = 64, 64, 9, 2
    a = random.standard_normal((2, k, c // 2))
    b = random.standard_normal((2, f // 2, k))
    if kind == "svd":
        cores = random.standard_normal((2, 2, k, k, p))
        blocks = np.einsum("hfk,ghkjp,gjc->ghfcp", b, cores, a)
    else:
        blocks = np.einsum("hfk,ghkp,gkc->ghfcp", b, random.standard_normal((2, 2, k, p)), a)
    inputs, outputs = random.permutation(c).reshape(2, -1), random.permutation(f).reshape(2, -1)
    weight = np.empty((f, c, p))
    for g in range(2):
        for h in range(2):
            weight[np.ix_(outputs[h], inputs[g])] = blocks[g, h]
    return weight.reshape(f, c, 3, 3), inputs, outputs


@pytest.mark.parametrize("full", ["G=2,H=3,K1=4,K2=4", "G=1,H=1,K1=8,K2=12", "G=8,H=12,K1=1,K2=1"])
def test_svd_is_exact_at_full_rank(full: str) -> None:
    weight = rng().standard_normal((12, 8, 3, 3))
    conv = replace(CONV2, in_channels=8, out_channels=12, kernel=(3, 3))
    scheme = SchemeSpec.parse(f"bicluster-svd:{full}").resolve(conv)
    result = scheme.fit(weight, metric=Frobenius(), rng=rng())
    # Two square orthogonal matrices, of up to 12 columns, applied back and forth.
    assert result.error <= 4 * 12 * EPS


@pytest.mark.parametrize(
    ("shape", "full"),
    [
        ((12, 8, 3, 3), "G=2,H=3,K=16"),  # outputs 4, inputs 4, taps 9: the taps are longest
        ((24, 8, 3, 3), "G=4,H=2,K=18"),  # 12, 2, 9: the outputs are longest
        ((8, 24, 3, 3), "G=2,H=4,K=18"),  # 2, 12, 9: the inputs are longest
        ((6, 6, 2, 1), "G=2,H=2,K=6"),  # 3, 3, 2
    ],
)
def test_outer_is_exact_to_rounding_at_full_rank(shape: tuple[int, ...], full: str) -> None:
    weight = rng().standard_normal(shape)
    conv = replace(CONV2, in_channels=shape[1], out_channels=shape[0], kernel=shape[2:])
    scheme = SchemeSpec.parse(f"bicluster-outer:{full}").resolve(conv)
    result = scheme.fit(weight, metric=Frobenius(), rng=rng())
    # Terms of unit vectors and the weight's own entries: sums with one term that is not zero.
    assert result.error == 0.0


@pytest.mark.parametrize("kind", ["svd", "outer"])
def test_planted_blocks_are_found_and_fitted(kind: str) -> None:
    for seed in range(5):
        weight, inputs, outputs = planted(kind, seed)
        scheme = BiclusterSVD(2, 2, 2, 2) if kind == "svd" else BiclusterOuter(2, 2, 2)
        result = scheme.fit(weight, metric=Frobenius(), rng=rng(seed))
        factors = cast(BlockTucker2Factors | BlockCPFactors, result.factors)
        found = [factors.input_clusters, factors.output_clusters]
        for mine, truth in zip(found, (inputs, outputs), strict=True):
            assert {frozenset(row) for row in mine.tolist()} == {
                frozenset(row) for row in truth.tolist()
            }, f"seed {seed}"
        # Tucker-2 of an exact block is in closed form; CP converges to its stopping rule.
        assert result.error <= (1e-12 if kind == "svd" else 1e-2), f"seed {seed}"


def test_clusters_are_found_under_noise_that_fills_half_of_the_ranks() -> None:
    # Two strong directions in each cluster, noise in all: at K1 = half the members, subspaces of
    # K1 dimensions would fit any cluster, and the assignment would stay where it was seeded.
    found = 0
    for seed in range(8):
        random = rng(seed)
        truth = random.permutation(np.repeat([0, 1], 32))
        strong = random.standard_normal((2, 2, 40 * 9))
        rows = np.einsum("ck,ckl->cl", random.standard_normal((64, 2)), strong[truth])
        rows += 0.7 * random.standard_normal(rows.shape)
        weight = rows.reshape(64, 40, 3, 3).swapaxes(0, 1)
        clusters, _ = bicluster(weight, 2, 1, 16, 20, rng(seed))
        agree = int(np.sum(truth[clusters[0]] == 0))
        found += max(agree, 32 - agree) >= 31
    assert found == 8


def test_the_structure_is_the_documented_one() -> None:
    weight = rng().standard_normal((12, 8, 5, 3))
    svd = cast(
        BlockTucker2Factors,
        BiclusterSVD(2, 3, 2, 3).fit(weight, metric=Frobenius(), rng=rng()).factors,
    )
    assert svd.inputs.shape == (2, 3, 2, 4)
    assert svd.cores.shape == (2, 3, 3, 2, 5, 3)
    assert svd.outputs.shape == (2, 3, 4, 3)
    outer = cast(
        BlockCPFactors, BiclusterOuter(2, 3, 5).fit(weight, metric=Frobenius(), rng=rng()).factors
    )
    assert outer.inputs.shape == (2, 3, 5, 4)
    assert outer.kernels.shape == (2, 3, 5, 5, 3)
    assert outer.outputs.shape == (2, 3, 4, 5)
    for factors in (svd, outer):
        assert sorted(factors.input_clusters.ravel()) == list(range(8))
        assert sorted(factors.output_clusters.ravel()) == list(range(12))
        assert factors.input_clusters.shape == (2, 4)
        assert factors.output_clusters.shape == (3, 4)
    blocks = gather_blocks(svd.reconstruct(), svd.input_clusters, svd.output_clusters)
    for g in range(2):
        for h in range(3):
            block = blocks[g, h]
            assert np.linalg.matrix_rank(block.reshape(4, -1)) == 3
            assert np.linalg.matrix_rank(block.swapaxes(0, 1).reshape(4, -1)) == 2


def test_svd_bases_are_orthonormal() -> None:
    weight = rng().standard_normal((12, 8, 3, 3))
    factors = cast(
        BlockTucker2Factors,
        BiclusterSVD(2, 2, 3, 4).fit(weight, metric=Frobenius(), rng=rng()).factors,
    )
    a, b = factors.inputs, factors.outputs
    np.testing.assert_allclose(
        a @ a.swapaxes(2, 3), np.broadcast_to(np.eye(3), (2, 2, 3, 3)), atol=32 * EPS
    )
    np.testing.assert_allclose(
        b.swapaxes(2, 3) @ b, np.broadcast_to(np.eye(4), (2, 2, 4, 4)), atol=32 * EPS
    )


@pytest.mark.parametrize("scheme", [BiclusterSVD(2, 2, 3, 4), BiclusterOuter(2, 2, 6)])
def test_the_refinement_improves_on_the_published_start(
    scheme: BiclusterSVD | BiclusterOuter,
) -> None:
    for seed in range(3):
        weight = rng(seed).standard_normal((16, 12, 3, 3))
        result = scheme.fit(weight, metric=Frobenius(), rng=rng(seed))
        assert result.error < result.start_error


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", ["frobenius", "covariance"])
def test_diverging_components_stay_bounded(name: str, rank: int) -> None:
    # Of rank three, but as near as one likes to rank two, by components that cancel each other
    # (de Silva and Lim 2008, theorem 1.1).
    random = rng()
    x, y, z, u, v, w = (np.linalg.qr(random.standard_normal((3, 2)))[0][:, i] for i in (0, 1) * 3)
    tensor = sum(np.einsum("f,c,p->fcp", *term) for term in ((x, y, w), (x, v, z), (u, y, z)))
    weight = np.asarray(tensor).reshape(3, 3, 3)
    rows = random.standard_normal((50, 9))
    metric: Metric = Frobenius() if name == "frobenius" else Covariance((rows.T @ rows / 50)[None])
    result = fit_scheme(BiclusterOuter(1, 1, rank), weight, metric=metric, rng=rng())
    factors = cast(BlockCPFactors, result.factors)
    # In float32, where the layer runs, terms this much larger than the sum lose less than 1e-3.
    assert factors.cancellation() <= 1e3
    assert result.error <= result.start_error


def test_cancellation_is_the_largest_term_relative_to_their_sum() -> None:
    index = np.arange(2)[None]
    factors = BlockCPFactors(
        index,
        index,
        inputs=np.array([[[[3.0, 4.0], [3.0, 4.0]]]]),
        kernels=np.array([[[[2.0], [1.5]]]]),
        outputs=np.array([[[[1.0, -1.0], [0.0, 0.0]]]]),
    )
    # Terms of norms 10 and 7.5, the second one against the first: 2.5 is left.
    assert factors.cancellation() == pytest.approx(4.0, rel=4 * EPS)


@pytest.mark.parametrize(("k1", "k2", "printed"), [(19, 51, 6.3), (24, 64, 4.0), (28, 76, 2.9)])
def test_published_conv2_rows_of_svd_count_the_core_alone(k1: int, k2: int, printed: float) -> None:
    scheme = BiclusterSVD(2, 2, k1, k2)
    core = 2 * 2 * k1 * k2 * 25
    assert round(CONV2.params / core, 1) == printed
    # All three stages, each where it runs, cost more: the first sees every input position.
    macs = scheme.macs(CONV2)
    first = 2 * 2 * 48 * k1 * 55 * 55
    last = 2 * 2 * k2 * 128 * 26 * 26
    assert macs == first + core * 26 * 26 + last
    assert CONV2.macs is not None
    assert CONV2.macs / macs < CONV2.params / core


@pytest.mark.parametrize(("k", "printed"), [(6, 6.9), (10, 4.1), (16, 2.5)])
def test_published_conv2_rows_of_outer_count_one_resolution(k: int, printed: float) -> None:
    scheme = BiclusterOuter(48, 2, k)
    # The table prints one decimal, of 2.58 the 2.5: one unit of it is all that it can tell.
    assert abs(CONV2.params / scheme.params(CONV2) - printed) < 0.1
    macs = scheme.macs(CONV2)
    # The first stage runs at the 55 x 55 input, not at the 26 x 26 output that the table counts.
    assert macs is not None
    extra = 48 * 2 * k * 2 * (55 * 55 - 26 * 26)
    assert macs == scheme.params(CONV2) * 26 * 26 + extra


@pytest.mark.parametrize(
    ("conv", "text", "printed"),
    [
        (CONV3, "bicluster-svd:G=2,H=4,K1=51,K2=51", 4.0),
        (CONV3, "bicluster-svd:G=2,H=4,K1=64,K2=76", 2.4),
        (CONV3, "bicluster-svd:G=2,H=4,K1=76,K2=76", 2.1),
        (CONV3, "bicluster-outer:G=128,H=4,K=4", 4.1),
        (CONV3, "bicluster-outer:G=128,H=4,K=8", 2.1),
        (CONV4, "bicluster-outer:G=256,H=8,K=4", 4.1),
        (CONV4, "bicluster-outer:G=256,H=8,K=8", 2.1),
    ],
)
def test_published_rows_at_stride_one(conv: ConvSpec, text: str, printed: float) -> None:
    macs = SchemeSpec.parse(text).resolve(conv).macs(conv)
    assert macs is not None
    assert conv.macs is not None
    # To the one decimal that the tables print; that alone is 1.8 % of 2.064, printed as 2.1.
    assert round(conv.macs / macs, 1) == printed


def test_limits_are_of_a_block() -> None:
    chosen = {"G": 2, "H": 4}
    assert BiclusterSVD.limit("K1", chosen, CONV3) == 128
    assert BiclusterSVD.limit("K2", chosen, CONV3) == 128
    # A block of 128 x 128 channels and 9 taps is at most 128 * 9 outer products.
    assert BiclusterOuter.limit("K", chosen, CONV3) == 128 * 9
    assert BiclusterOuter.limit("K", {"G": 128, "H": 4}, CONV3) == 2 * 9
