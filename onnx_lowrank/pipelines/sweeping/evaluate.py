"""One point of a sweep, in a process of its own: fit, and measure on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from onnx_lowrank.data import Dataset
from onnx_lowrank.fitting.layer import LayerFit, fit_layer
from onnx_lowrank.fitting.model import layer_problem
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.measure.verification import verify
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.metrics.output_error import squared_output
from onnx_lowrank.pipelines.sweeping.grid import Point
from onnx_lowrank.pipelines.sweeping.result import PointResult
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.runtime import Provider
from onnx_lowrank.runtime.engines import open_engine
from onnx_lowrank.schemes.base import relative_error
from onnx_lowrank.types import Array

Statistics = Mapping[str, LayerStatistics]

NEEDS: dict[str, frozenset[str]] = {
    "frobenius": frozenset(),
    "covariance": frozenset({"statistics"}),
    "mahalanobis": frozenset({"gradients"}),
    "combined": frozenset({"statistics", "gradients"}),
}
"""All metrics, and what each takes of the calibration data."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all points of a sweep share; sent to every process.

    Attributes
    ----------
    model : Path
        File of the normalised model.
    held_out : mapping of str to LayerStatistics
        Statistics of the held-out data, by layer.
    calibration : mapping of str to LayerStatistics
        Of the calibration data; empty where no metric takes them.
    gradients : mapping of str to Path
        Files with the metric of the gradients over the calibration data, as of `save_gradients`;
        empty where no metric takes them.
    calibration_images : int or None
        Number of calibration images.
    filters : Path
        Folder where the fitted weights of layers on colour images are kept, for a figure.
    seed : int
        Fixes every random choice.
    network : Dataset or None
        Held-out data to run the whole network on, if that is asked for.
    threads : int
        Threads of onnxruntime in a process.
    provider : {"cpu", "cuda"}
        Where the network runs.
    """

    model: Path
    held_out: Statistics
    calibration: Statistics
    gradients: Mapping[str, Path]
    calibration_images: int | None
    filters: Path
    seed: int
    network: Dataset | None
    threads: int
    provider: Provider = "cpu"


def evaluate(setting: Setting, point: Point, key: str) -> tuple[str, PointResult]:
    """Fit one point and measure it.

    Parameters
    ----------
    setting : Setting
        What all points share.
    point : Point
        Layer, scheme and metric.
    key : str
        What the point is kept under; handed back, as points finish in any order.
    """
    weight, bias = _parameters(setting.model, point.layer)
    needs = NEEDS[point.metric]
    problem = layer_problem(
        weight,
        bias,
        point.conv.group,
        statistics=setting.calibration[point.layer] if "statistics" in needs else None,
        gradients=load_gradients(setting.gradients[point.layer]) if "gradients" in needs else None,
    )
    fit = fit_layer(point.layer, point.scheme, problem, seed=setting.seed)
    fitted = fit.factors.reconstruct()
    found = PointResult(
        layer=point.layer,
        scheme=point.scheme.spec,
        metric=point.metric,
        calibration_images=setting.calibration_images if needs else None,
        macs=point.conv.macs,
        macs_new=point.scheme.macs(point.conv),
        params=point.conv.params,
        params_new=point.scheme.params(point.conv),
        fit_error=fit.error,
        held_out_error=_held_out_error(setting, point.layer, weight, bias, fitted, fit.bias),
        seconds=fit.seconds,
    )
    if shows_colours(weight):
        setting.filters.mkdir(exist_ok=True)
        original, approximate = weight.astype(np.float32), fitted.astype(np.float32)
        np.savez(setting.filters / f"{key}.npz", original=original, fitted=approximate)
    if setting.network is not None:
        found = replace(found, **_network(setting, fit))
    return key, found


def save_gradients(metric: Mahalanobis, path: Path) -> None:
    """Write the metric of the gradients of one layer to a file."""
    np.save(path, metric.alpha, allow_pickle=False)


def load_gradients(path: Path) -> Mahalanobis:
    """Read what `save_gradients` has written."""
    return Mahalanobis(np.load(path, allow_pickle=False))


def shows_colours(weight: Array) -> bool:
    """Whether a weight, ``(F, C, *kernel)``, is of filters on images of three channels."""
    return weight.ndim == 4 and weight.shape[1] == 3 and weight.shape[2] * weight.shape[3] > 1


# Points come layer by layer: what the last one needed is mostly what the next one needs.
@lru_cache(maxsize=1)
def _parameters(model: Path, layer: str) -> tuple[Array, Array | None]:
    """Return a layer's weight and bias in float64."""
    proto = load_model(model)
    editor = GraphEditor(proto)
    found = next(each for each in find_layers(proto) if each.name == layer)
    return layer_weight(editor, found), layer_bias(editor, found)


def _held_out_error(
    setting: Setting,
    layer: str,
    weight: Array,
    bias: Array | None,
    fitted: Array,
    fitted_bias: Array | None,
) -> float:
    moments = setting.held_out[layer].moments
    nothing = np.zeros(len(weight))
    offset = (nothing if bias is None else bias) - (nothing if fitted_bias is None else fitted_bias)
    return relative_error(
        squared_output(moments, weight - fitted, offset), squared_output(moments, weight)
    )


def _network(setting: Setting, fit: LayerFit) -> dict[str, Any]:
    """Run the network with this layer alone replaced, beside the original."""
    original = load_model(setting.model)
    replacement = Replacement(fit.factors, fit.bias, STANDARD)
    changed, _ = replace_layers(original, {fit.layer: replacement})
    report = verify(
        original,
        changed,
        setting.network,
        engines=(open_engine(setting.provider, setting.threads),),
    )
    result = report.results[setting.provider]
    ratios = [output["sqnr_db"] for output in result.outputs if output["sqnr_db"] is not None]
    return {
        "samples": report.samples,
        "top1_agreement": result.agreement["top1"],
        "accuracy_original": result.accuracy.get("original"),
        "accuracy": result.accuracy.get("compressed"),
        "drop_points": result.accuracy.get("drop_points"),
        "sqnr_db": min(ratios, default=None),
    }
