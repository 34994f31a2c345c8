"""How far moments of few images are to be shrunk towards a multiple of the identity."""

from __future__ import annotations

import numpy as np

from onnx_lowrank.types import Array


def shrinkage_intensity(
    *, squared_weights: float, image_norm: float, norm: float, distance: float
) -> float:
    """Return the intensity of Ledoit and Wolf (J. Multivariate Analysis 88, 2004) among images.

    Patches of one image resemble each other, so they say less of other images than their number
    suggests. The independent observations are the moments ``S_i`` of single images: the variance
    of their weighted mean S is estimated, without bias for equal weights, as
    ``sum w_i^2 (sum w_i |S_i|^2 - |S|^2) / (1 - sum w_i^2)``, and set against the distance
    between S and the target T, the multiple of the identity with the trace of S.

    Parameters
    ----------
    squared_weights : float
        ``sum w_i^2`` of the images' weights, which sum to one; 1 for a single image.
    image_norm : float
        ``sum w_i |S_i|_F^2``.
    norm : float
        ``|S|_F^2``.
    distance : float
        ``|S - T|_F^2``.

    Returns
    -------
    float
        Between 0 and 1; 1 for a single image, which does not show how much images differ.
    """
    if squared_weights >= 1:
        return 1.0
    variance = squared_weights * (image_norm - norm) / (1 - squared_weights)
    return float(np.clip(variance / distance, 0.0, 1.0)) if distance > 0 else 0.0


class ImageMoments:
    """Sums over images from which the intensities follow, without a matrix for each image.

    ``|S_i|_F`` comes from the smaller of an image's two Gram matrices. For the covariance about
    the overall mean mu, which is known only in the end, an image with mean m contributes
    ``Z = S_i - m mu^T - mu m^T + mu mu^T``, of which the squared norm is
    ``|S_i|^2 + 2 |m|^2 |mu|^2 + |mu|^4 - 4 m^T S_i mu + 2 mu^T S_i mu + 2 (m.mu)^2
    - 4 (m.mu) |mu|^2``. Kept are the sums of these terms, and the images' means, by a triangular
    factor once they are many.

    Parameters
    ----------
    groups, length : int
        Number of groups, and length K of a group's patch.
    """

    def __init__(self, groups: int, length: int) -> None:
        self._length = length
        self._weight = 0.0
        self._squared_weight = 0.0
        self._norm = 0.0
        self._mean = np.zeros((groups, length))
        self._mean_norm = np.zeros(groups)
        self._moment_mean = np.zeros((groups, length))
        self._means: list[Array] = []

    def add(self, weight: float, *, norm: float, mean: Array, moment_mean: Array) -> None:
        """Add an image.

        Parameters
        ----------
        weight : float
            Its weight, of any scale.
        norm : float
            ``|S_i|_F^2``, summed over groups.
        mean : ndarray, shape (groups, K)
            Its mean m.
        moment_mean : ndarray, shape (groups, K)
            ``S_i m``.
        """
        self._weight += weight
        self._squared_weight += weight**2
        self._norm += weight * norm
        self._mean += weight * mean
        self._mean_norm += weight * np.sum(mean**2, axis=1)
        self._moment_mean += weight * moment_mean
        self._means.append(np.sqrt(weight) * mean[:, None])
        if sum(m.shape[1] for m in self._means) >= 2 * self._length:
            # Only |means @ mu| is asked for: a triangle with the same Gram matrix tells it too.
            self._means = [np.linalg.qr(np.concatenate(self._means, axis=1)).R]

    def intensities(
        self, *, norm: float, traces: Array, moment_mean: Array
    ) -> tuple[float, float, float]:
        """Return the intensities for the second moment, for the covariance, and for the mean.

        Parameters
        ----------
        norm : float
            ``|S|_F^2`` of the second moment S of all images, summed over groups.
        traces : ndarray, shape (groups,)
            Its traces.
        moment_mean : ndarray, shape (groups, K)
            ``S mu``.
        """
        mean = self._mean / self._weight
        energy = np.sum(mean**2, axis=1)
        along = float(np.vdot(mean, moment_mean))
        image_norm = self._norm / self._weight
        means = np.concatenate(self._means, axis=1)
        spread = float(np.sum((means @ mean[:, :, None]) ** 2)) / self._weight
        centred_image_norm = (
            image_norm
            + 2 * float(energy @ self._mean_norm) / self._weight
            - 3 * float(energy @ energy)
            - 4 * float(np.vdot(self._moment_mean, mean)) / self._weight
            + 2 * along
            + 2 * spread
        )
        centred_norm = norm - 2 * along + float(energy @ energy)
        # Towards zero: the distance to the target is the norm itself.
        of_mean = shrinkage_intensity(
            squared_weights=self._squared_weight / self._weight**2,
            image_norm=float(self._mean_norm.sum()) / self._weight,
            norm=float(energy.sum()),
            distance=float(energy.sum()),
        )
        return (
            self._intensity(image_norm, norm, traces),
            self._intensity(centred_image_norm, centred_norm, traces - energy),
            of_mean,
        )

    def _intensity(self, image_norm: float, norm: float, traces: Array) -> float:
        return shrinkage_intensity(
            squared_weights=self._squared_weight / self._weight**2,
            image_norm=image_norm,
            norm=norm,
            distance=norm - float(traces @ traces) / self._length,
        )
