"""The fits a plan asks for: a layer's least-squares problem in, factors out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes import Factors, Scheme
from onnx_lowrank.schemes.base import Weight
from onnx_lowrank.schemes.dense import Dense, DenseFactors
from onnx_lowrank.schemes.fits.fit import fit_schemes

Bias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FitProblem:
    """What the factors of one layer should approximate.

    Attributes
    ----------
    weight : ndarray, shape (F, C / group, *kernel), float64
        The target.
    metric : Metric
        What is minimised.
    bias : callable
        Gives the bias, shape (F,) or None, that goes with a fitted weight.
    group : int
        Groups of the layer.
    """

    weight: Weight
    metric: Metric
    bias: Callable[[Weight], Bias | None]
    group: int = 1


@dataclass(frozen=True)
class LayerFit:
    """The factors of one layer and how they came about.

    Attributes
    ----------
    layer : str
        The layer's name.
    scheme : Scheme
        The structure that was fitted.
    metric : str
        Name of the metric that was minimised.
    factors : Factors
        The fitted factors.
    bias : ndarray, shape (F,), or None
        The bias that goes with them.
    start_error, error : float
        Relative error in the metric of the published construction, and of the final factors.
    seconds : float
        Wall-clock time of the fit.
    """

    layer: str
    scheme: Scheme
    metric: str
    factors: Factors
    bias: Bias | None
    start_error: float
    error: float
    seconds: float

    @property
    def cancellation(self) -> float | None:
        """How much larger the largest term of a sum of CP terms is than the weight; None if none.

        Float32 loses about this many times 6e-8 to it.
        """
        return self.factors.cancellation()


def exact_fit(layer: str, weight: Weight, bias: Bias | None) -> LayerFit:
    """Return a layer as it is, its weight ``(F, C / group, *kernel)``, as a fit without error."""
    return LayerFit(layer, Dense(), "none", DenseFactors(weight), bias, 0.0, 0.0, 0.0)


def layer_rng(seed: int, layer: str) -> np.random.Generator:
    """Return the generator of one layer: it depends on the seed and the name only."""
    digest = hashlib.sha256(layer.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


def fit_layer(layer: str, scheme: Scheme, problem: FitProblem, *, seed: int) -> LayerFit:
    """Fit one layer by one scheme; see `fit_layer_by_schemes`."""
    (fit,) = fit_layer_by_schemes(layer, [scheme], problem, seed=seed)
    return fit


def fit_layer_by_schemes(
    layer: str, schemes: Sequence[Scheme], problem: FitProblem, *, seed: int
) -> Iterator[LayerFit]:
    """Fit one layer by several schemes, which share what depends on the layer alone.

    Parameters
    ----------
    layer : str
        The layer's name; with the seed it fixes every random choice.
    schemes : sequence of Scheme
        Structures with their ranks.
    problem : FitProblem
        What to approximate.
    seed : int
        The seed.

    Yields
    ------
    LayerFit
        In the order of `schemes`, each as soon as it is done.

    Raises
    ------
    SchemeError
        The weight has NaN or Inf.
    """
    fits = fit_schemes(
        schemes,
        problem.weight,
        metric=problem.metric,
        rng=layer_rng(seed, layer),
        group=problem.group,
    )
    start = time.perf_counter()
    for scheme in schemes:
        fit = next(fits)
        bias = problem.bias(fit.factors.reconstruct())
        now = time.perf_counter()
        yield LayerFit(
            layer=layer,
            scheme=scheme,
            metric=problem.metric.name,
            factors=fit.factors,
            bias=bias,
            start_error=fit.start_error,
            error=fit.error,
            seconds=now - start,
        )
        start = time.perf_counter()
