"""Balanced clustering of lines and subspaces: k-means with equal sizes, blind to signs.

Everything is computed from the Gram matrix of the points, so that their length costs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def cluster_sizes(points: int, clusters: int) -> Labels:
    """Return sizes that differ by at most one, larger ones first."""
    small, extra = divmod(points, clusters)
    return np.array([small + (k < extra) for k in range(clusters)], dtype=np.int64)


def assign_balanced(gain: Array) -> Labels:
    """Return the cluster of every point that maximises the summed gain at equal cluster sizes.

    Parameters
    ----------
    gain : ndarray, shape (points, clusters)
        What a point adds to a cluster.
    """
    points, clusters = gain.shape
    seat_of = np.repeat(np.arange(clusters), cluster_sizes(points, clusters))
    _, seats = linear_sum_assignment(gain[:, seat_of], maximize=True)
    return seat_of[seats].astype(np.int64)


def balanced_subspaces(
    gram: Array,
    clusters: int,
    dimension: int,
    rng: np.random.Generator,
    *,
    restarts: int = 4,
    max_iterations: int = 50,
) -> Labels:
    """Cluster points around subspaces through the origin, all clusters of one size.

    Alternates the best subspace of every cluster (its leading principal directions) with the best balanced assignment;
    the energy captured never falls. Sizes that do not divide differ by one.

    Parameters
    ----------
    gram : ndarray, shape (n, n)
        Inner products of the points.
    clusters : int
        Number of clusters.
    dimension : int
        Dimension of each cluster's subspace; 1 clusters lines.
    rng : numpy.random.Generator
        Chooses the seeds.
    restarts, max_iterations : int
        Number of starts, of which the best is kept, and of alternations in each.

    Returns
    -------
    ndarray of int64, shape (n,)
        Cluster of every point.
    """
    best, best_energy = np.zeros(gram.shape[0], np.int64), -np.inf
    if clusters == 1:
        return best
    for _ in range(restarts):
        labels, energy = _descend(gram, clusters, dimension, rng, max_iterations)
        if energy > best_energy:
            best, best_energy = labels, energy
    return best


def _descend(
    gram: Array, clusters: int, dimension: int, rng: np.random.Generator, max_iterations: int
) -> tuple[Labels, float]:
    seeds = _seed_lines(gram, clusters, rng)
    norms = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    labels = assign_balanced((gram[:, seeds] / norms[seeds]) ** 2)
    energy = -np.inf
    for _ in range(max_iterations):
        gain = np.stack(
            [_projection(gram, labels == k, dimension) for k in range(clusters)], axis=1
        )
        captured = float(gain[np.arange(labels.size), labels].sum())
        if captured <= energy * (1 + 1e-12):
            break
        energy, kept = captured, labels
        labels = assign_balanced(gain)
    return kept, energy


def _projection(gram: Array, members: NDArray[np.bool_], dimension: int) -> Array:
    """Return every point's squared projection onto the leading principal subspace of the members."""
    values, vectors = np.linalg.eigh(gram[np.ix_(members, members)])
    values, vectors = values[::-1][:dimension], vectors[:, ::-1][:, :dimension]
    significant = values > values[0] * 1e-12 if values[0] > 0 else np.zeros(values.size, bool)
    basis = vectors[:, significant] / np.sqrt(values[significant])
    return np.asarray(((gram[:, members] @ basis) ** 2).sum(axis=1))


def _seed_lines(gram: Array, clusters: int, rng: np.random.Generator) -> Labels:
    """Choose distinct seeds by k-means++ among lines.

    Squared cosines are inner products of ``x x^T / |x|^2``, in which x and -x are one point; an eigendecomposition of their
    matrix gives coordinates.
    """
    from sklearn.cluster import kmeans_plusplus

    norms = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh((gram / np.outer(norms, norms)) ** 2)
    points = vectors * np.sqrt(np.maximum(values, 0))
    seed = int(rng.integers(2**31))
    _, seeds = kmeans_plusplus(points, clusters, random_state=seed)
    return np.asarray(seeds, np.int64)
