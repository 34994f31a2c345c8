"""Balanced clustering of lines and subspaces: k-means with equal sizes, blind to signs.

All is computed from the Gram matrix of the points, so that their length costs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from onnx_lowrank.types import Array

Labels = NDArray[np.int64]

TOLERANCE = 2e-3  # fall of the energy left out, relative to it, at which clusters have converged


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

    Alternates the best subspace of every cluster (its leading principal directions) with the best
    balanced assignment; the energy captured never falls. Sizes that do not divide differ by one.

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
    if clusters == gram.shape[0]:
        return np.arange(clusters)
    for seeds in _seed_lines(gram, clusters, restarts, rng):
        labels, energy = _descend(gram, seeds, clusters, dimension, max_iterations)
        if energy > best_energy:
            best, best_energy = labels, energy
    return best


def _descend(
    gram: Array, seeds: Labels, clusters: int, dimension: int, max_iterations: int
) -> tuple[Labels, float]:
    norms = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    labels = assign_balanced((gram[:, seeds] / norms[seeds]) ** 2)
    total, energy = float(np.trace(gram)), -np.inf
    for _ in range(max_iterations):
        gain = _gains(gram, labels, clusters, dimension)
        captured = float(gain[np.arange(labels.size), labels].sum())
        if captured <= energy:
            break
        rise, energy, kept = captured - energy, captured, labels
        if rise <= TOLERANCE * (total - captured):
            break
        labels = assign_balanced(gain)
    return kept, energy


def _gains(gram: Array, labels: Labels, clusters: int, dimension: int) -> Array:
    """Return every point's squared projection onto every cluster's subspace, ``(n, clusters)``."""
    gain = [_projection(gram, labels == k, dimension) for k in range(clusters)]
    return np.stack(gain, axis=1)


def _projection(gram: Array, members: NDArray[np.bool_], dimension: int) -> Array:
    """Return every point's squared projection onto the members' leading principal subspace."""
    values, vectors = np.linalg.eigh(gram[np.ix_(members, members)])
    values, vectors = values[::-1][:dimension], vectors[:, ::-1][:, :dimension]
    significant = values > values[0] * 1e-12 if values[0] > 0 else np.zeros(values.size, bool)
    basis = vectors[:, significant] / np.sqrt(values[significant])
    return np.asarray(((gram[:, members] @ basis) ** 2).sum(axis=1))


def _seed_lines(gram: Array, clusters: int, count: int, rng: np.random.Generator) -> list[Labels]:
    """Choose distinct seeds by k-means++ among lines, `count` times.

    Squared cosines are inner products of ``x x^T / |x|^2``, in which x and -x are one point; an
    eigendecomposition of their matrix gives coordinates.
    """
    from sklearn.cluster import kmeans_plusplus

    norms = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh((gram / np.outer(norms, norms)) ** 2)
    points = vectors * np.sqrt(np.maximum(values, 0))
    states = rng.integers(2**31, size=count)
    return [
        np.asarray(kmeans_plusplus(points, clusters, random_state=int(state))[1], np.int64)
        for state in states
    ]
