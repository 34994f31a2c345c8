"""Balanced clusters of lines and subspaces."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.schemes.fits.clustering import assign_balanced, balanced_subspaces, cluster_sizes

Array = NDArray[np.float64]


def captured(points: Array, labels: NDArray[np.int64], dimension: int) -> float:
    """Energy of the points in the best subspace of their cluster, by an SVD of the points."""
    energy = 0.0
    for k in np.unique(labels):
        values = np.linalg.svd(points[labels == k], compute_uv=False)
        energy += float(np.sum(values[:dimension] ** 2))
    return energy


def planted(
    clusters: int, size: int, dimension: int, noise: float, seed: int
) -> tuple[Array, NDArray[np.int64]]:
    """Points near subspaces of their own, in a random order, with random signs."""
    rng = np.random.default_rng(seed)
    length = 8 * clusters * dimension
    truth = rng.permutation(np.repeat(np.arange(clusters), size))
    bases = rng.standard_normal((clusters, dimension, length))
    points = np.einsum("nd,ndl->nl", rng.standard_normal((truth.size, dimension)), bases[truth])
    # A point near the origin belongs nowhere: keep every point's length near one.
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points *= rng.choice([-1.0, 1.0], size=(truth.size, 1))
    return points + noise / np.sqrt(length) * rng.standard_normal(points.shape), truth


def same_partition(one: NDArray[np.int64], two: NDArray[np.int64]) -> bool:
    return bool(np.array_equal(one[:, None] == one, two[:, None] == two))


@pytest.mark.parametrize(
    ("points", "clusters"), [(12, 4), (13, 4), (15, 4), (5, 5), (7, 1), (9, 8)]
)
@pytest.mark.parametrize("dimension", [1, 2])
def test_sizes_differ_by_at_most_one(points: int, clusters: int, dimension: int) -> None:
    data = np.random.default_rng(1).standard_normal((points, 20))
    labels = balanced_subspaces(data @ data.T, clusters, dimension, np.random.default_rng(0))
    counts = np.bincount(labels, minlength=clusters)
    assert labels.shape == (points,)
    assert counts.max() - counts.min() <= 1
    assert sorted(counts) == sorted(cluster_sizes(points, clusters))


def test_assignment_is_the_best_of_all_balanced_ones() -> None:
    rng = np.random.default_rng(0)
    for points, clusters in ((6, 3), (7, 3), (4, 4)):
        gain = rng.standard_normal((points, clusters))
        seats = np.repeat(np.arange(clusters), cluster_sizes(points, clusters))
        best = max(
            sum(gain[i, k] for i, k in enumerate(order)) for order in set(permutations(seats))
        )
        found = gain[np.arange(points), assign_balanced(gain)].sum()
        # Sums of the same few numbers in another order.
        assert found == pytest.approx(best, rel=1e-14)


@pytest.mark.parametrize(
    ("clusters", "size", "dimension"), [(4, 6, 1), (8, 4, 1), (3, 8, 2), (2, 16, 4)]
)
def test_planted_clusters_are_found(clusters: int, size: int, dimension: int) -> None:
    for seed in range(5):
        points, truth = planted(clusters, size, dimension, 0.1, seed)
        labels = balanced_subspaces(
            points @ points.T, clusters, dimension, np.random.default_rng(seed)
        )
        assert same_partition(labels, truth), f"seed {seed}"


@pytest.mark.parametrize("dimension", [1, 3])
def test_signs_of_the_points_do_not_matter(dimension: int) -> None:
    rng = np.random.default_rng(5)
    points = rng.standard_normal((24, 30))
    flipped = points * rng.choice([-1.0, 1.0], size=(24, 1))
    one, two = (
        balanced_subspaces(p @ p.T, 4, dimension, np.random.default_rng(0))
        for p in (points, flipped)
    )
    # Flips change no product's magnitude, so that even the rounding is the same.
    assert captured(points, one, dimension) == pytest.approx(
        captured(points, two, dimension), rel=1e-12
    )
    assert same_partition(one, two)


def test_more_iterations_never_lower_the_energy() -> None:
    points = np.random.default_rng(2).standard_normal((40, 60))
    gram = points @ points.T
    # With half as many dimensions as members a cluster captures its own points whatever they are.
    for dimension, rises in ((1, True), (2, True), (4, False)):
        energies = [
            captured(
                points,
                balanced_subspaces(
                    gram, 5, dimension, np.random.default_rng(0), restarts=1, max_iterations=n
                ),
                dimension,
            )
            for n in range(1, 12)
        ]
        # Both energies are sums of squares of singular values, computed in two ways.
        assert all(b >= a * (1 - 1e-12) for a, b in pairwise(energies))
        assert energies[-1] > energies[0] or not rises


def test_the_end_is_a_fixed_point() -> None:
    points = np.random.default_rng(3).standard_normal((30, 50))
    labels = balanced_subspaces(
        points @ points.T, 5, 2, np.random.default_rng(0), restarts=1, max_iterations=1000
    )
    gain = np.empty((30, 5))
    for k in range(5):
        basis = np.linalg.svd(points[labels == k], full_matrices=False)[2][:2]
        gain[:, k] = ((points @ basis.T) ** 2).sum(axis=1)
    now = gain[np.arange(30), labels].sum()
    best = gain[np.arange(30), assign_balanced(gain)].sum()
    assert best == pytest.approx(now, rel=1e-12)


def test_restarts_keep_the_best() -> None:
    points = np.random.default_rng(4).standard_normal((36, 40))
    energies = [
        captured(
            points,
            balanced_subspaces(points @ points.T, 6, 1, np.random.default_rng(7), restarts=n),
            1,
        )
        for n in (1, 2, 4, 8)
    ]
    assert all(b >= a * (1 - 1e-12) for a, b in pairwise(energies))


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(np.zeros((8, 5)), id="zeros"),
        pytest.param(np.ones((8, 5)), id="one point"),
        pytest.param(np.eye(8), id="orthogonal"),
        pytest.param(np.r_[np.zeros((5, 3)), np.ones((3, 3))], id="zero rows"),
        pytest.param(np.ones((8, 1)) * np.array([1, -1] * 4)[:, None], id="one line"),
    ],
)
def test_degenerate_points_still_make_balanced_clusters(points: Array) -> None:
    for clusters in (1, 2, 4, 8):
        labels = balanced_subspaces(points @ points.T, clusters, 1, np.random.default_rng(0))
        assert np.bincount(labels, minlength=clusters).tolist() == [8 // clusters] * clusters


def test_the_gram_matrix_is_left_alone() -> None:
    points = np.random.default_rng(0).standard_normal((12, 9))
    gram = points @ points.T
    before = gram.copy()
    gram.setflags(write=False)
    balanced_subspaces(gram, 3, 2, np.random.default_rng(0))
    assert np.array_equal(gram, before)
