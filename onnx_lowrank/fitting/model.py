"""The fits of all layers that a plan replaces: in plain norm, or in the metric of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.fitting.layer import FitProblem, LayerFit, exact_fit, fit_layer
from onnx_lowrank.fitting.statistics import Sampling, StepwiseStatistics, calibrate
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason, of_layer
from onnx_lowrank.metrics.base import Weight
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.metrics.target import fit_target
from onnx_lowrank.planning.plan import Plan
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.runtime.engines import CPU, Engine
from onnx_lowrank.schemes.dense import Dense
from onnx_lowrank.types import Progress, silent

MetricName = Literal["covariance", "mahalanobis", "combined"]
# From a classifier, samples and names of layers to the metrics of the gradients, by layer name.
GradientSource = Callable[[onnx.ModelProto, Dataset, Sequence[str]], Mapping[str, Mahalanobis]]


@dataclass(frozen=True)
class Calibration:
    """Data whose output error the fits minimise.

    Attributes
    ----------
    dataset : Dataset
        Inputs; not those on which the result is measured.
    asymmetric : bool
        Whether each layer is fitted to the original output from the inputs that it will see in the
        compressed network, bottom up, so that errors do not pile up.
    cache_dir : path, optional
        Where statistics are kept.
    metric : {"covariance", "mahalanobis", "combined"}
        What is minimised: the expected error of the layer's output, the error of its weights
        weighted by the gradients of the classifier's softmax output, or the first with each output
        weighted by these gradients.
    engine : Engine
        On whose device, and on how many threads, onnxruntime runs the models over the data.
    gradients : callable, optional
        Measures the gradients, which every metric but the covariance takes: from a classifier,
        samples and names of layers to the metrics of the gradients, by layer name.

    Raises
    ------
    DataError
        The metric is unknown, has no asymmetric form, or takes gradients that nothing measures.
    """

    dataset: Dataset
    asymmetric: bool = False
    cache_dir: Path | None = field(default=None)
    metric: MetricName = "covariance"
    engine: Engine = CPU
    gradients: GradientSource | None = None

    def __post_init__(self) -> None:
        if self.metric not in get_args(MetricName):
            known = ", ".join(get_args(MetricName))
            raise DataError(f"no metric of data is called '{self.metric}'; choose one of {known}")
        if self.asymmetric and self.metric == "mahalanobis":
            raise DataError(
                "mahalanobis fits do not look at the layer's inputs, so they cannot be asymmetric; "
                "choose the metric combined, or leave asymmetric out"
            )
        if self.metric != "covariance" and self.gradients is None:
            raise DataError(
                f"the metric '{self.metric}' takes gradients; give what measures them, such as "
                "onnx_lowrank.training.gradients.layer_gradients"
            )


@dataclass(frozen=True, eq=False)
class ModelFits:
    """The fits of a plan.

    Attributes
    ----------
    fits : dict of str to LayerFit
        By layer name, in graph order.
    failed : dict of str to str
        Why layers have no fit of their own, by name.
    """

    fits: dict[str, LayerFit]
    failed: dict[str, str]


def fit_model(
    model: onnx.ModelProto,
    plan: Plan,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ModelFits:
    """Fit every layer that a plan replaces.

    A layer whose statistics or fit fail is an error where the plan names it; otherwise it is left
    out, and the others go on.

    Parameters
    ----------
    model : onnx.ModelProto
        The model, normalised; not changed.
    plan : Plan
        What is replaced by what.
    calibration : Calibration, optional
        Data for another metric; the Frobenius norm is minimised if not given.
    seed : int
        Fixes every random choice.
    progress : callable
        Called with a sentence, the number of layers done, and their total.

    Returns
    -------
    ModelFits

    Raises
    ------
    DataError, SchemeError, ModelError
        A layer that the plan names has no fit; or what the data set raises.
    """
    layers = {layer.name: layer for layer in find_layers(model)}
    chosen = plan.chosen
    named = {decision.layer for decision in plan.decisions if decision.named}
    editor = GraphEditor(model)
    statistics: Mapping[str, LayerStatistics] = {}
    gradients: Mapping[str, Mahalanobis] = {}
    if calibration is not None:
        progress("looking at the data", 0, len(chosen))
        if calibration.metric != "covariance" and calibration.gradients is not None:
            gradients = calibration.gradients(model, calibration.dataset, list(chosen))
        if calibration.metric != "mahalanobis" and not calibration.asymmetric:
            statistics = calibrate(
                model,
                calibration.dataset,
                list(chosen),
                cache_dir=calibration.cache_dir,
                sampling=Sampling(seed=seed),
                engine=calibration.engine,
            )
    fits: dict[str, LayerFit] = {}
    failed: dict[str, str] = {}
    below: StepwiseStatistics | None = None
    with ExitStack() as stack:
        if calibration is not None and calibration.asymmetric:
            below = stack.enter_context(
                StepwiseStatistics(
                    model,
                    calibration.dataset,
                    list(chosen),
                    sampling=Sampling(seed=seed),
                    engine=calibration.engine,
                )
            )
        for done, (name, scheme) in enumerate(chosen.items()):
            progress(f"fitting {name} as {scheme.spec}", done, len(chosen))
            try:
                weight, bias = layer_weight(editor, layers[name]), layer_bias(editor, layers[name])
                if isinstance(scheme, Dense):
                    fits[name] = exact_fit(name, weight, bias)
                    continue
                if below is not None:
                    compressed = _replaced(model, fits) if fits else None
                    statistics = {name: below.next(name, weight, compressed)}
                spec = layers[name].spec
                problem = layer_problem(
                    weight,
                    bias,
                    spec.group if spec else 1,
                    statistics=statistics.get(name),
                    gradients=gradients.get(name),
                )
                fit = fit_layer(name, scheme, problem, seed=seed)
            except LAYER_ERRORS as error:
                if name in named:
                    raise of_layer(name, error) from error
                failed[name] = layer_reason(error)
            else:
                fits[name] = fit if calibration is None else replace(fit, metric=calibration.metric)
    return ModelFits(fits, failed)


def _replaced(model: onnx.ModelProto, fits: Mapping[str, LayerFit]) -> onnx.ModelProto:
    values = {name: Replacement(fit.factors, fit.bias, STANDARD) for name, fit in fits.items()}
    return replace_layers(model, values)[0]


def layer_problem(
    weight: Weight,
    bias: NDArray[np.float64] | None,
    group: int,
    *,
    statistics: LayerStatistics | None = None,
    gradients: Mahalanobis | None = None,
) -> FitProblem:
    """Return what to approximate: in plain norm, or in the metric of what is known of the layer.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel), float64
        The layer's weight.
    bias : ndarray, shape (F,), float64, or None
        Its bias.
    group : int
        Its groups.
    statistics : LayerStatistics, optional
        Of its input: then the metric is the covariance, and the bias is refitted.
    gradients : Mahalanobis, optional
        By its weight: the metric, or the output weights of the covariance.
    """
    if statistics is None:
        return FitProblem(weight, gradients or Frobenius(), lambda fitted: bias, group)
    outputs = None if gradients is None else gradients.output_weights()
    target = fit_target(statistics, weight, bias, outputs=outputs)
    return FitProblem(target.weight, target.metric, target.bias, group)
