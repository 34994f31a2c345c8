"""The fits a plan asks for: weights in, factors out, one layer after the other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.schemes import Factors, Scheme
from onnx_lowrank.schemes.base import Weight


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
    start_error, error : float
        Relative error in the metric of the published construction, and of the final factors.
    seconds : float
        Wall-clock time of the fit.
    """

    layer: str
    scheme: Scheme
    metric: str
    factors: Factors
    start_error: float
    error: float
    seconds: float


def layer_rng(seed: int, layer: str) -> np.random.Generator:
    """Return the generator of one layer: it depends on the seed and the name only."""
    digest = hashlib.sha256(layer.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


def fit_layers(
    schemes: Mapping[str, Scheme],
    *,
    weight_of: Callable[[str], Weight],
    metric_of: Callable[[str], Metric],
    seed: int,
    progress: Callable[[str, int], None] = lambda layer, done: None,
) -> dict[str, LayerFit]:
    """Fit every layer of `schemes`.

    Parameters
    ----------
    schemes : mapping
        Scheme by layer name.
    weight_of : callable
        Gives a layer's dense weight, ``(F, C / group, *kernel)``, float64.
    metric_of : callable
        Gives the metric in which a layer is fitted.
    seed : int
        Fixes every random choice.
    progress : callable
        Called with a layer's name and the number of layers done before its fit starts.

    Returns
    -------
    dict
        A `LayerFit` by layer name, in the order of `schemes`.
    """
    fits = {}
    for done, (layer, scheme) in enumerate(schemes.items()):
        progress(layer, done)
        metric, start = metric_of(layer), time.perf_counter()
        fit = scheme.fit(weight_of(layer), metric=metric, rng=layer_rng(seed, layer))
        seconds = time.perf_counter() - start
        fits[layer] = LayerFit(
            layer, scheme, metric.name, fit.factors, fit.start_error, fit.error, seconds
        )
    return fits
