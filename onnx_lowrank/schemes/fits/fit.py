"""Fits of schemes in a metric; those of several schemes share what depends on the layer alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance, RowCovariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes.base import Fit, Scheme, Weight, check_finite, relative_error
from onnx_lowrank.schemes.fits.als import refine
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem


def fit_schemes(
    schemes: Sequence[Scheme],
    weight: Weight,
    *,
    metric: Metric,
    rng: np.random.Generator,
    group: int = 1,
) -> Iterator[Fit]:
    """Fit several schemes, or one at several ranks, to one layer.

    What depends on the layer alone is computed once: in a covariance metric the product of weight
    and moment, the second moment of the responses, and roots of the moment of the inputs. Each
    fit is the one that the scheme alone would get with a generator in the same state.

    Where the moment of a kernel is too large to be formed (`RowCovariance`), schemes whose fit
    works on it get the published construction, in the plain norm: one product with the metric
    takes seconds there, a refinement hundreds of them. Errors are in the metric all the same.

    Parameters
    ----------
    schemes : sequence of Scheme
        The structures with their ranks.
    weight : ndarray, shape (F, C / group, *kernel), float64
        What to approximate; not changed.
    metric : Metric
        What is minimised.
    rng : numpy.random.Generator
        The only source of randomness.
    group : int
        Groups of the layer.

    Yields
    ------
    Fit
        In the order of `schemes`, each as soon as it is done. Its ``start_error`` is that of the
        published construction, in the metric.

    Raises
    ------
    SchemeError
        If the weight has NaN or Inf.
    """
    check_finite(weight)
    problem = (
        LayerProblem(weight, metric, group)
        if isinstance(metric, Covariance | RowCovariance)
        else None
    )
    state = rng.bit_generator.state
    for scheme in schemes:
        rng.bit_generator.state = state
        unformed = isinstance(metric, RowCovariance) and scheme.needs_moment
        fit = None if problem is None or unformed else scheme.fit_in_covariance(problem, rng)
        if fit is None:
            fit = scheme.fit(weight, metric=metric, rng=rng, group=group)
            # What is exact is so in every metric.
            if fit.error > 0 and not isinstance(metric, Frobenius) and not unformed:
                fit = _refined(fit, weight, metric)
        yield fit


def _refined(fit: Fit, weight: Weight, metric: Metric) -> Fit:
    factors = refine(fit.factors, weight, metric)
    squared = metric.squared_norm(weight - factors.reconstruct())
    error = relative_error(squared, metric.squared_norm(weight))
    return Fit(factors, fit.start_error, error) if error <= fit.error else fit
