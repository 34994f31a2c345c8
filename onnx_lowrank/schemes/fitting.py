"""The fit of a scheme in a metric: the published construction, then least squares."""

from __future__ import annotations

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes.base import Fit, Scheme, Weight, relative_error
from onnx_lowrank.schemes.refine import refine


def fit_scheme(
    scheme: Scheme, weight: Weight, *, metric: Metric, rng: np.random.Generator, group: int = 1
) -> Fit:
    """Fit a scheme in any metric.

    Parameters
    ----------
    scheme : Scheme
        The structure with its ranks.
    weight : ndarray, shape (F, C / group, *kernel), float64
        What to approximate; not changed.
    metric : Metric
        What is minimised.
    rng : numpy.random.Generator
        The only source of randomness.
    group : int
        Groups of the layer.

    Returns
    -------
    Fit
        Its ``start_error`` is that of the published construction, in the metric.
    """
    fit = scheme.fit(weight, metric=metric, rng=rng, group=group)
    if isinstance(metric, Frobenius):
        return fit
    factors = refine(fit.factors, weight, metric)
    squared = metric.squared_norm(weight - factors.reconstruct())
    error = relative_error(squared, metric.squared_norm(weight))
    return Fit(factors, fit.start_error, min(error, fit.error)) if error <= fit.error else fit
