"""The best approximation of a linear map by one of lower rank, in a metric of its inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Matrix = NDArray[np.float64]


def reduced_rank(
    matrix: Matrix, rank: int, responses: Matrix | None = None
) -> tuple[Matrix, Matrix]:
    """Minimise ``tr((M - B A) S (M - B A)^T)`` over B and A of the given rank.

    The best B spans the leading principal components of the responses ``M x``, and ``A = B^T M``
    (reduced-rank regression; Izenman, J. Multivariate Analysis 5, 1975). Where S is the identity
    it is the truncated SVD (Eckart and Young 1936).

    Parameters
    ----------
    matrix : ndarray, shape (F, N)
        The map M.
    rank : int
        Rank of the result, at most ``min(F, N)``.
    responses : ndarray, shape (F, F), optional
        Second moment of the responses, ``M S M^T``; that of S = 1 if not given.

    Returns
    -------
    outputs : ndarray, shape (F, rank)
        B, with orthonormal columns.
    inputs : ndarray, shape (rank, N)
        A.
    """
    rows, columns = matrix.shape
    if responses is not None or rows <= columns:
        basis = leading(matrix @ matrix.T if responses is None else responses, rank)
        return basis, basis.T @ matrix
    # The Gram matrix of the smaller side: what it loses to rounding, eps * |M|^2, only turns
    # directions that carry no weight.
    right = leading(matrix.T @ matrix, rank)
    basis, triangle = np.linalg.qr(matrix @ right)
    return basis, triangle @ right.T


def leading(gram: Matrix, rank: int) -> Matrix:
    """Return the eigenvectors of the `rank` largest eigenvalues, largest first, with fixed signs.

    Parameters
    ----------
    gram : ndarray, shape (n, n)
        A symmetric matrix.
    rank : int
        At most n.

    Returns
    -------
    ndarray, shape (n, rank)
        Every column's entry of largest magnitude is positive.
    """
    size = len(gram)
    # LAPACK's divide and conquer beats the selection of eigenvalues unless few are wanted.
    if 4 * rank > size:
        vectors = linalg.eigh((gram + gram.T) / 2, driver="evd", check_finite=False)[1]
    else:
        vectors = linalg.eigh(
            (gram + gram.T) / 2, subset_by_index=(size - rank, size - 1), check_finite=False
        )[1]
    vectors = vectors[:, ::-1][:, :rank]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)])
    return np.ascontiguousarray(vectors * np.where(signs == 0, 1.0, signs))


def principal(gram: Matrix) -> tuple[Matrix, Matrix]:
    """Return all eigenvalues, ``(n,)``, and eigenvectors, ``(n, n)``, as `leading` orders them."""
    vectors = leading(gram, len(gram))
    return np.maximum(np.einsum("ij,ij->j", vectors, gram @ vectors), 0.0), vectors


def principal_of_tall(matrix: Matrix, moment: Matrix) -> tuple[Matrix, Matrix]:
    """Return what `principal` returns of ``M S M^T``, from matrices of the size of S.

    Parameters
    ----------
    matrix : ndarray, shape (F, N)
        The map M, with more rows than columns.
    moment : ndarray, shape (N, N)
        The second moment S of its inputs.

    Returns
    -------
    values : ndarray, shape (N,)
        The other eigenvalues are zero.
    vectors : ndarray, shape (F, N)
        Orthonormal columns.
    """
    values, vectors = principal(moment)
    responses = matrix @ (vectors * np.sqrt(values))  # M S^(1/2), turned
    values, turns = principal(responses.T @ responses)
    basis, triangle = np.linalg.qr(responses @ turns)
    return values, basis * np.where(np.diag(triangle) < 0, -1.0, 1.0)


def spectrum(matrix: Matrix) -> NDArray[np.float64]:
    """Return the squared singular values of a matrix, largest first.

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
    """
    side = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    values = linalg.eigvalsh(side @ side.T, check_finite=False)[::-1]
    return np.maximum(values, 0.0)
