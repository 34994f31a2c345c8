"""The best approximation of a linear map by a map of lower rank, in the metric of its inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Matrix = NDArray[np.float64]


def reduced_rank(
    matrix: Matrix, rank: int, moment: Matrix | None = None
) -> tuple[Matrix, Matrix]:
    """Minimise ``tr((M - B A) S (M - B A)^T)`` over B and A of the given rank.

    The best B spans the leading principal components of the responses ``M x``, and ``A = B^T M`` (reduced-rank
    regression; Izenman, J. Multivariate Analysis 5, 1975). Without a moment it is the truncated SVD (Eckart and Young 1936).

    Parameters
    ----------
    matrix : ndarray, shape (F, N)
        The map M.
    rank : int
        Rank of the result, at most ``min(F, N)``.
    moment : ndarray, shape (N, N), optional
        Second moment S of the inputs; the identity if not given.

    Returns
    -------
    outputs : ndarray, shape (F, rank)
        B, with orthonormal columns.
    inputs : ndarray, shape (rank, N)
        A.
    """
    rows, columns = matrix.shape
    if moment is not None:
        basis = _leading(matrix @ moment @ matrix.T, rank)
        return basis, basis.T @ matrix
    # The Gram matrix of the smaller side: its rounding, eps * |M|^2, moves only directions that carry no weight.
    if rows <= columns:
        basis = _leading(matrix @ matrix.T, rank)
        return basis, basis.T @ matrix
    right = _leading(matrix.T @ matrix, rank)
    basis, triangle = np.linalg.qr(matrix @ right)
    return basis, triangle @ right.T


def response_spectrum(matrix: Matrix, moment: Matrix | None = None) -> Matrix:
    """Return the energies of the principal components of the responses ``M x``, in falling order."""
    inner = matrix if moment is None else matrix @ moment
    gram = inner @ matrix.T if moment is not None or matrix.shape[0] <= matrix.shape[1] else (
        matrix.T @ matrix
    )
    return np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)


def _leading(gram: Matrix, rank: int) -> Matrix:
    """Return the eigenvectors of the `rank` largest eigenvalues, largest first, with signs that do not depend on LAPACK."""
    size = gram.shape[0]
    _, vectors = linalg.eigh(gram, subset_by_index=(size - rank, size - 1), check_finite=False)
    vectors = vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)])
    return np.ascontiguousarray(vectors * np.where(signs == 0, 1.0, signs))
