"""Structures, written out entry by entry."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from onnx_lowrank.schemes.factors import (
    BlockCPFactors,
    BlockTucker2Factors,
    MonochromaticFactors,
    gather_blocks,
    members,
    scatter_blocks,
)

EPS = float(np.finfo(np.float64).eps)
RNG = np.random.default_rng(0)
INPUTS = np.array([[0, 2, 5], [1, 3, 4]])
OUTPUTS = np.array([[3, 1], [0, 2]])
KERNELS = [(3,), (2, 3), (2, 1, 2)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_monochromatic_is_one_colour_times_one_filter(kernel: tuple[int, ...]) -> None:
    colours, filters = RNG.standard_normal((2, 3)), RNG.standard_normal((4, *kernel))
    colour_of = np.array([1, 0, 0, 1])
    dense = MonochromaticFactors(colours, filters, colour_of).reconstruct()
    assert dense.shape == (4, 3, *kernel)
    for f, c in product(range(4), range(3)):
        assert np.array_equal(dense[f, c], colours[colour_of[f], c] * filters[f])


@pytest.mark.parametrize("kernel", KERNELS)
def test_block_tucker2_entry_by_entry(kernel: tuple[int, ...]) -> None:
    k1, k2 = 2, 3
    a = RNG.standard_normal((2, 2, k1, 3))
    cores = RNG.standard_normal((2, 2, k2, k1, *kernel))
    b = RNG.standard_normal((2, 2, 2, k2))
    dense = BlockTucker2Factors(INPUTS, OUTPUTS, a, cores, b).reconstruct()
    assert dense.shape == (4, 6, *kernel)
    for g, h, i, j in product(range(2), range(2), range(3), range(2)):
        entry = sum(
            b[g, h, j, q] * cores[g, h, q, p] * a[g, h, p, i]
            for p, q in product(range(k1), range(k2))
        )
        # Sums of k1 k2 products of three, in two orders; the entries are of order one.
        np.testing.assert_allclose(
            dense[OUTPUTS[h, j], INPUTS[g, i]], entry, rtol=0, atol=40 * k1 * k2 * EPS
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_block_cp_entry_by_entry(kernel: tuple[int, ...]) -> None:
    k = 4
    a = RNG.standard_normal((2, 2, k, 3))
    kernels = RNG.standard_normal((2, 2, k, *kernel))
    b = RNG.standard_normal((2, 2, 2, k))
    dense = BlockCPFactors(INPUTS, OUTPUTS, a, kernels, b).reconstruct()
    assert dense.shape == (4, 6, *kernel)
    for g, h, i, j in product(range(2), range(2), range(3), range(2)):
        entry = sum(b[g, h, j, q] * kernels[g, h, q] * a[g, h, q, i] for q in range(k))
        np.testing.assert_allclose(
            dense[OUTPUTS[h, j], INPUTS[g, i]], entry, rtol=0, atol=40 * k * EPS
        )


@pytest.mark.parametrize("kernel", [(), *KERNELS])
def test_blocks_are_cut_and_put_back(kernel: tuple[int, ...]) -> None:
    weight = RNG.standard_normal((4, 6, *kernel))
    blocks = gather_blocks(weight, INPUTS, OUTPUTS)
    assert blocks.shape == (2, 2, 2, 3, int(np.prod(kernel)))
    assert np.array_equal(blocks[1, 0, 1, 2], weight[1, 4].ravel())
    assert np.array_equal(scatter_blocks(blocks, INPUTS, OUTPUTS, kernel), weight)


def test_members_are_listed_in_rising_order() -> None:
    assert members(np.array([1, 0, 1, 2, 0, 2]), 3).tolist() == [[1, 4], [0, 2], [3, 5]]
