"""Every half-step of CP-ALS against the dense least-squares problem that it solves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.schemes.fits import cp_als, cp_start
from onnx_lowrank.schemes.fits.cp_als import CPTerms

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
B, F, C, P, K = 3, 6, 5, 4, 3


def problem(seed: int) -> tuple[Array, CPTerms]:
    rng = np.random.default_rng(seed)
    terms = CPTerms(
        rng.standard_normal((B, K, C)),
        rng.standard_normal((B, K, P)),
        rng.standard_normal((B, F, K)),
    )
    return rng.standard_normal((B, F, C, P)), terms


def design(terms: CPTerms, block: int, name: str) -> Array:
    """Return the dense matrix of the map from one factor to the block, ``(F C P, entries)``."""
    factor = getattr(terms, name)
    columns = []
    for index in np.ndindex(factor.shape[1:]):
        unit = np.zeros_like(factor)
        unit[(block, *index)] = 1.0
        columns.append(replace(terms, **{name: unit}).dense()[block].ravel())
    return np.stack(columns, axis=1)


def outputs_step(blocks: Array, terms: CPTerms) -> Array:
    return cp_als.update_outputs(blocks, terms)


def inputs_step(blocks: Array, terms: CPTerms) -> Array:
    return cp_als.update_inputs(cp_als.half_product(blocks, terms.outputs), terms)


def kernels_step(blocks: Array, terms: CPTerms) -> Array:
    return cp_als.update_kernels(cp_als.half_product(blocks, terms.outputs), terms)[0]


STEPS: dict[str, Callable[[Array, CPTerms], Array]] = {
    "outputs": outputs_step,
    "inputs": inputs_step,
    "kernels": kernels_step,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_half_step_is_the_dense_least_squares_solution(name: str) -> None:
    for seed in range(4):
        blocks, terms = problem(seed)
        stepped = replace(terms, **{name: STEPS[name](blocks, terms)})
        before, after = (cp_als.squared_errors(blocks, t) for t in (terms, stepped))
        assert np.all(after <= before * (1 + 1e-12))
        for block in range(B):
            matrix = design(terms, block, name)
            best, *_ = np.linalg.lstsq(matrix, blocks[block].ravel(), rcond=None)
            found = getattr(stepped, name)[block].ravel()
            # The ridge moves the solution by its size over the smallest eigenvalue of the normal
            # equations: at most RIDGE * cond^2 of it. Their own rounding, eps cond^2, is less.
            tolerance = 2 * cp_als.RIDGE * np.linalg.cond(matrix) ** 2
            assert np.linalg.norm(found - best) <= tolerance * np.linalg.norm(best)


def test_sweeps_never_raise_the_error_of_any_block() -> None:
    blocks, terms = problem(1)
    errors = [cp_als.squared_errors(blocks, terms)]
    for _ in range(30):
        for name, step in STEPS.items():
            terms = replace(terms, **{name: step(blocks, terms)})
            errors.append(cp_als.squared_errors(blocks, terms))
    total = np.sum(blocks**2, axis=(1, 2, 3))
    # The ridge gives up at most RIDGE of the terms' energy, which is that of the block here.
    assert all(np.all(b <= a + 1e-8 * total) for a, b in itertools.pairwise(errors))


def test_als_is_never_worse_than_its_start_in_any_block() -> None:
    for seed in range(6):
        blocks, terms = problem(seed)
        fitted = cp_als.als(blocks, terms)
        start, end = (cp_als.squared_errors(blocks, t) for t in (terms, fitted))
        assert np.all(end <= start * (1 + 1e-12))
        assert end.sum() < start.sum()


def test_als_recovers_terms_that_are_there() -> None:
    _, truth = problem(2)
    blocks = truth.dense()
    rng = np.random.default_rng(0)
    near = replace(truth, inputs=truth.inputs + 0.1 * rng.standard_normal(truth.inputs.shape))
    total = np.sum(blocks**2, axis=(1, 2, 3))
    # It stops at a relative fall of the squared error, or where that is 1e-24 of the whole.
    assert np.all(cp_als.squared_errors(blocks, cp_als.als(blocks, near)) <= 1e-6 * total)


def test_a_block_is_fitted_alike_alone_and_among_others() -> None:
    blocks, terms = problem(3)
    whole = cp_als.update_outputs(blocks, terms)
    for block in range(B):
        part = slice(block, block + 1)
        alone = cp_als.update_outputs(
            blocks[part], CPTerms(terms.inputs[part], terms.kernels[part], terms.outputs[part])
        )
        # Each block is a LAPACK solve of its own; only the order of sums in products may differ.
        np.testing.assert_allclose(alone[0], whole[block], rtol=1e-10, atol=1e-12)


def test_deflation_takes_out_energy_with_every_term() -> None:
    blocks, _ = problem(4)
    errors = [
        cp_als.squared_errors(blocks, cp_start.greedy_deflation(blocks, k)) for k in range(1, 8)
    ]
    for a, b in itertools.pairwise(errors):
        assert np.all(b < a)
    # A term is the residual's projection onto a unit outer product: the first, near the best one,
    # takes at least its share of the largest singular value of the unfolding.
    values = np.linalg.svd(blocks.reshape(B, F, -1), compute_uv=False)
    total = np.sum(blocks**2, axis=(1, 2, 3))
    assert np.all(total - errors[0] >= values[:, 0] ** 2 / min(C, P) * (1 - 1e-9))


@pytest.mark.parametrize("shape", [(6, 5, 4), (3, 7, 4), (4, 3, 9), (1, 5, 3), (5, 1, 3)])
def test_an_svd_per_spatial_filter_is_exact_with_all_terms(shape: tuple[int, int, int]) -> None:
    f, c, p = shape
    blocks = np.random.default_rng(0).standard_normal((2, *shape))
    terms = cp_start.spatial_svd(blocks, p * min(f, c))
    # Singular vectors from eigenvectors of Gram matrices: complete, hence exact to n eps.
    np.testing.assert_allclose(terms.dense(), blocks, rtol=0, atol=64 * p * max(f, c) * EPS)


@pytest.mark.parametrize("shape", [(7, 6), (5, 8)])
def test_spatial_start_is_exact_with_all_terms_and_truncates_the_smallest(
    shape: tuple[int, int],
) -> None:
    blocks = np.random.default_rng(0).standard_normal((2, *shape, 4))
    total = np.sum(blocks**2, axis=(1, 2, 3))
    most = 4 * min(shape)
    errors = [
        cp_als.squared_errors(blocks, cp_start.spatial_svd(blocks, rank))
        for rank in (1, most // 2, most - 1, most)
    ]
    # Orthonormal bases on two sides.
    assert np.all(errors[-1] <= total * (4 * max(shape) * EPS) ** 2)
    assert all(np.all(more < fewer) for fewer, more in itertools.pairwise(errors))


@pytest.mark.parametrize("shape", [(6, 5, 4), (3, 7, 4), (4, 3, 9), (1, 1, 4), (2, 2, 2)])
def test_exact_terms_are_the_blocks(shape: tuple[int, int, int]) -> None:
    blocks = np.random.default_rng(0).standard_normal((2, *shape))
    terms = cp_start.exact_terms(blocks)
    assert terms.kernels.shape[1] == int(np.prod(sorted(shape)[:2]))
    assert np.array_equal(terms.dense(), blocks)


def test_more_sweeps_are_never_worse_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nearly parallel terms: least squares crawls there, and extrapolation overshoots.
    rng = np.random.default_rng(0)
    common = [rng.standard_normal((8, 1, n)) for n in (C, P, F)]
    near = [x + 0.1 * rng.standard_normal((8, K, x.shape[-1])) for x in common]
    truth = CPTerms(near[0], near[1], near[2].swapaxes(1, 2))
    blocks = truth.dense() + 1e-3 * rng.standard_normal((8, F, C, P))
    start = CPTerms(
        rng.standard_normal((8, K, C)),
        rng.standard_normal((8, K, P)),
        rng.standard_normal((8, F, K)),
    )
    monkeypatch.setattr(cp_als, "TOLERANCE", 0.0)
    errors = []
    for sweeps in range(40):
        monkeypatch.setattr(cp_als, "MAX_SWEEPS", sweeps)
        errors.append(cp_als.squared_errors(blocks, cp_als.als(blocks, start)))
    total = np.sum(blocks**2, axis=(1, 2, 3))
    # The error is followed as |W|^2 - 2 <W, W~> + |W~|^2: rounding of sums of F C P terms, and of
    # terms larger than their sum.
    assert all(np.all(b <= a + 1e-11 * total) for a, b in itertools.pairwise(errors))
