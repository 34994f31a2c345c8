"""Tucker-2 by alternating bases: every step is the best of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.schemes.fits import hooi

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
B, F, C, P = 3, 7, 6, 4


def blocks_of(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((B, F, C, P))


def errors(blocks: Array, inputs: Array, outputs: Array) -> Array:
    """Squared error of every block, from projections written out."""
    dense = np.einsum("bfk,bkjp,bcj->bfcp", outputs, core(blocks, inputs, outputs), inputs)
    return np.asarray(np.sum((blocks - dense) ** 2, axis=(1, 2, 3)))


def core(blocks: Array, inputs: Array, outputs: Array) -> Array:
    return np.asarray(np.einsum("bfk,bfcp,bcj->bkjp", outputs, blocks, inputs))


def test_the_core_is_the_dense_least_squares_solution() -> None:
    blocks = blocks_of(0)
    inputs, outputs = hooi.successive_svd(blocks, 3, 4)
    found = hooi.core(blocks, inputs, outputs)
    for b in range(B):
        design = np.kron(np.kron(outputs[b], inputs[b]), np.eye(P))
        best, *_ = np.linalg.lstsq(design, blocks[b].ravel(), rcond=None)
        # Orthonormal columns: the condition number is 1, and sums have F C P terms.
        ordered = found[b].ravel()
        np.testing.assert_allclose(ordered, best, rtol=0, atol=F * C * P * EPS * 4)


def test_each_basis_is_the_best_given_the_other() -> None:
    blocks = blocks_of(1)
    inputs, outputs = hooi.successive_svd(blocks, 3, 4)
    for b in range(B):
        # Output side first, of the whole block; then the input side of what is left.
        values = np.linalg.svd(blocks[b].reshape(F, -1), compute_uv=False)
        left = np.einsum("fk,fcp->kcp", outputs[b], blocks[b])
        assert np.sum(left**2) == pytest.approx(np.sum(values[:4] ** 2), rel=64 * EPS * F)
        values = np.linalg.svd(left.swapaxes(0, 1).reshape(C, -1), compute_uv=False)
        kept = np.einsum("kcp,cj->kjp", left, inputs[b])
        assert np.sum(kept**2) == pytest.approx(np.sum(values[:3] ** 2), rel=64 * EPS * F)


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 4), (2, 7), (6, 2), (6, 7)])
def test_iteration_never_raises_the_error(k1: int, k2: int) -> None:
    for seed in range(4):
        blocks = blocks_of(seed)
        inputs, outputs = hooi.successive_svd(blocks, k1, k2)
        start = errors(blocks, inputs, outputs)
        end = errors(blocks, *hooi.hooi(blocks, inputs, k2))
        total = np.sum(blocks**2, axis=(1, 2, 3))
        assert np.all(end <= start + 64 * F * C * EPS * total)


def test_exact_where_the_ranks_are_there() -> None:
    rng = np.random.default_rng(0)
    blocks = np.einsum(
        "bfk,bkjp,bcj->bfcp",
        rng.standard_normal((B, F, 3)),
        rng.standard_normal((B, 3, 2, P)),
        rng.standard_normal((B, C, 2)),
    )
    inputs, outputs = hooi.successive_svd(blocks, 2, 3)
    total = np.sum(blocks**2, axis=(1, 2, 3))
    # A basis from a Gram matrix is turned by its rounding, n eps over the gap, and the error is
    # the square of that.
    assert np.all(errors(blocks, inputs, outputs) <= (1e3 * F * C * EPS) ** 2 * total)


def test_bases_are_orthonormal_even_of_nothing() -> None:
    for blocks in (blocks_of(2), np.zeros((B, F, C, P))):
        inputs, outputs = hooi.hooi(blocks, hooi.successive_svd(blocks, 3, 4)[0], 4)
        for basis in (inputs, outputs):
            gram = basis.swapaxes(1, 2) @ basis
            unit = np.broadcast_to(np.eye(gram.shape[-1]), gram.shape)
            np.testing.assert_allclose(gram, unit, rtol=0, atol=32 * F * EPS)


def test_large_and_small_gram_matrices_give_the_same_vectors() -> None:
    size = hooi.BATCHED + 8
    rows = np.random.default_rng(0).standard_normal((2, size, 3 * size))
    grams = rows @ rows.swapaxes(1, 2)
    for rank in (5, size // 2):
        vectors = hooi.leading_left(grams, rank)
        for gram, found in zip(grams, vectors, strict=True):
            expected = np.linalg.eigh(gram)[1][:, ::-1][:, :rank]
            # Projectors from eigenvectors, good to n eps over the gap, here above 1e-4 of the sum.
            projector = expected @ expected.T
            np.testing.assert_allclose(found @ found.T, projector, rtol=0, atol=1e-9)
            pivots = np.abs(found).argmax(axis=0)
            assert np.all(found[pivots, np.arange(rank)] > 0)


def test_iteration_ends_with_the_best_inputs_for_its_outputs() -> None:
    blocks = blocks_of(5)
    start, _ = hooi.successive_svd(blocks, 3, 4)
    inputs, outputs = hooi.hooi(blocks, start, 4)
    for b in range(B):
        left = np.einsum("fk,fcp->kcp", outputs[b], blocks[b]).swapaxes(0, 1).reshape(C, -1)
        best = np.linalg.svd(left, full_matrices=False)[0][:, :3]
        # Projections, which do not depend on a basis; the gap of random singular values is wide.
        np.testing.assert_allclose(inputs[b] @ inputs[b].T, best @ best.T, rtol=0, atol=1e-10)
        assert np.linalg.norm(inputs[b] @ inputs[b].T - start[b] @ start[b].T) > 1e-3
