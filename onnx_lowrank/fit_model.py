"""The fits of all layers that a plan replaces: in plain norm, or in the metric of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from onnx_lowrank.calibrate import calibrate
from onnx_lowrank.data import Dataset
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer, find_layers, layer_bias, layer_weight
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.metrics.target import fit_target
from onnx_lowrank.passes.approximate_conv import ApproximateConvPass
from onnx_lowrank.planning.fit import FitProblem, LayerFit, fit_layer
from onnx_lowrank.planning.plan import Plan

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibration:
    """Data whose output error the fits minimise.

    Attributes
    ----------
    dataset : Dataset
        Inputs; not those on which the result is judged.
    asymmetric : bool
        Whether each layer is fitted to the original output from the inputs that it will see in the
        compressed network, bottom up, so that errors do not pile up. It takes a run of both models
        per layer.
    cache_dir : path, optional
        Where statistics are kept.
    """

    dataset: Dataset
    asymmetric: bool = False
    cache_dir: Path | None = field(default=None)


def fit_model(
    model: onnx.ModelProto,
    plan: Plan,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    progress: Progress = lambda step, done, total: None,
) -> dict[str, LayerFit]:
    """Fit every layer that a plan replaces.

    Parameters
    ----------
    model : onnx.ModelProto
        The model, normalised; not changed.
    plan : Plan
        What is replaced by what.
    calibration : Calibration, optional
        Data for the covariance metric; the Frobenius norm is minimised if not given.
    seed : int
        Fixes every random choice.
    progress : callable
        Called with a sentence, the number of layers done, and their total.

    Returns
    -------
    dict
        A `LayerFit` by layer name, in graph order.
    """
    layers = {layer.name: layer for layer in find_layers(model)}
    chosen = plan.chosen
    editor = GraphEditor(model)
    statistics: Mapping[str, LayerStatistics] = {}
    if calibration is not None and not calibration.asymmetric:
        progress("looking at the data", 0, len(chosen))
        statistics = _statistics(model, calibration, list(chosen), seed, None)
    fits: dict[str, LayerFit] = {}
    for done, (name, scheme) in enumerate(chosen.items()):
        progress(f"fitting {name} as {scheme.spec}", done, len(chosen))
        if calibration is not None and calibration.asymmetric:
            below = _replaced(model, fits) if fits else None
            statistics = _statistics(model, calibration, [name], seed, below)
        problem = _problem(editor, layers[name], statistics.get(name))
        fits[name] = fit_layer(name, scheme, problem, seed=seed)
    return fits


def _statistics(
    model: onnx.ModelProto,
    calibration: Calibration,
    names: list[str],
    seed: int,
    compressed: onnx.ModelProto | None,
) -> Mapping[str, LayerStatistics]:
    return calibrate(
        model,
        calibration.dataset,
        names,
        compressed=compressed,
        cache_dir=calibration.cache_dir,
        seed=seed,
    )


def _replaced(model: onnx.ModelProto, fits: Mapping[str, LayerFit]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ApproximateConvPass({name: (fit.factors, fit.bias) for name, fit in fits.items()}).run(copy)
    return copy


def _problem(editor: GraphEditor, layer: Layer, statistics: LayerStatistics | None) -> FitProblem:
    weight, bias = layer_weight(editor, layer), layer_bias(editor, layer)
    group = layer.spec.group if layer.spec else 1
    if statistics is None:
        return FitProblem(weight, Frobenius(), lambda fitted: bias, group)
    target = fit_target(statistics, weight, bias)
    return FitProblem(target.weight, target.metric, target.bias, group)
