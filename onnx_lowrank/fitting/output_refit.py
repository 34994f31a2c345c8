"""Refits of last stages to the inputs that layers see in the compressed network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import blas

from onnx_lowrank.data import Dataset
from onnx_lowrank.fitting.layer import Bias, LayerFit
from onnx_lowrank.fitting.model import ModelFits
from onnx_lowrank.fitting.statistics import Sampling, StepwiseStatistics
from onnx_lowrank.fitting.statistics.jobs import Job
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason
from onnx_lowrank.metrics.accumulator import SINGLE_FROM, MomentAccumulator
from onnx_lowrank.metrics.moments import DenseMoments
from onnx_lowrank.metrics.target import MIN_INTENSITY
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.runtime.engines import CPU, Engine
from onnx_lowrank.schemes.base import Weight
from onnx_lowrank.schemes.structure import OutputMap, relative_error
from onnx_lowrank.types import Array, Progress, silent

POSITIONS = 128  # of an image: a last stage has fewer inputs than a patch has entries


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer of the original and its fit: weight ``(F, C, *kernel)``, bias ``(F,)`` or None."""

    weight: Weight
    bias: Bias | None
    fit: LayerFit
    last: OutputMap


def refit_outputs(
    model: onnx.ModelProto,
    fits: Mapping[str, LayerFit],
    dataset: Dataset,
    *,
    engine: Engine = CPU,
    seed: int = 0,
    progress: Progress = silent,
) -> ModelFits:
    """Fit the last stage of every layer to the original's outputs, from below.

    Each layer sees what the layers before it, replaced and refitted, make of the data; its last
    stage is regressed on what its other stages make of that. It is the part of an asymmetric fit
    (Zhang et al., PAMI 2016, section 3.2) that needs no moments of whole patches: on VGG-16 it
    takes off most of the noise that such a fit takes off.

    Parameters
    ----------
    model : onnx.ModelProto
        The original, normalised; not changed.
    fits : mapping of str to LayerFit
        Fits to the inputs in the original, by layer name, in graph order.
    dataset : Dataset
        Samples.
    engine : Engine
        Where onnxruntime runs the networks.
    seed : int
        Seed of the choice of positions.
    progress : callable
        Called with a sentence, the number of layers done, and their total.

    Returns
    -------
    ModelFits
        Of all layers; one without such a stage, or whose refit fails, keeps its fit. The error of
        a refit is relative to the deviation of the original's outputs from their mean.

    Raises
    ------
    DataError, ModelError, ProviderError
        What the data set raises, or a network that does not run.
    """
    layers = {layer.name: layer for layer in find_layers(model)}
    names = [name for name in layers if name in fits]
    editor = GraphEditor(model)
    found: dict[str, LayerFit] = {}
    failed: dict[str, str] = {}
    with StepwiseStatistics(
        model, dataset, names, sampling=Sampling(positions=POSITIONS, seed=seed), engine=engine
    ) as below:
        for done, name in enumerate(names):
            progress(f"refitting {name}", done, len(names))
            fit, last = fits[name], fits[name].factors.output_map()
            found[name] = fit
            if not done or last is None:
                below.skip(name)  # the first one's inputs are the original's: its fit suits them
                continue
            compressed = _replaced(model, {each: found[each] for each in names[:done]})
            weight, bias = layer_weight(editor, layers[name]), layer_bias(editor, layers[name])
            layer = _Layer(weight, bias, fit, last)
            try:
                sums = below.fill(name, compressed, partial(_RefitSums, layer))
                found[name] = sums.result()
            except LAYER_ERRORS as error:
                failed[name] = layer_reason(error)
    return ModelFits(found, failed)


def _replaced(model: onnx.ModelProto, fits: Mapping[str, LayerFit]) -> onnx.ModelProto:
    values = {name: Replacement(fit.factors, fit.bias, STANDARD) for name, fit in fits.items()}
    return replace_layers(model, values)[0]


class _RefitSums:
    """What a regression of the original's outputs on the inputs of a last stage needs."""

    def __init__(self, layer: _Layer, job: Job) -> None:
        del job
        self._layer = layer
        single = layer.weight[0].size >= SINGLE_FROM
        self._dtype = np.dtype(np.float32 if single else np.float64)
        inputs, weight = layer.last.inputs, layer.weight
        self._inputs = inputs.reshape(len(inputs), -1).astype(self._dtype)
        self._weight = weight.reshape(len(weight), -1).astype(self._dtype)
        self._seen = MomentAccumulator(1, len(inputs))
        self._lack = np.zeros((len(weight), len(inputs)))
        self._lack_mean = np.zeros(len(weight))
        self._lack_energy = 0.0
        self._wanted = np.zeros(len(weight))
        self._wanted_energy = 0.0
        self._positions = 0.0

    def add(self, patches: Array, *, positions: int, original: Array | None = None) -> None:
        """Add one image, as of `MomentAccumulator.add`."""
        assert original is not None
        seen = self._product(patches[0], self._inputs)
        wanted = self._product(original[0], self._weight)
        lack = wanted - blas.dgemm(1, seen.T, self._layer.last.weight.T, trans_a=1)
        scale = positions / len(seen)
        self._seen.add(seen[None], positions=positions)
        self._lack += scale * blas.dgemm(1, lack, seen.T, trans_a=1, trans_b=1)
        self._lack_mean += scale * lack.sum(axis=0)
        self._lack_energy += scale * float(np.vdot(lack, lack))
        self._wanted += scale * wanted.sum(axis=0)
        self._wanted_energy += scale * float(np.vdot(wanted, wanted))
        self._positions += positions

    def _product(self, rows: Array, weight: NDArray[Any]) -> Array:
        """Return rows times the transpose of a weight, ``(n, len(weight))``, by rows."""
        product = blas.get_blas_funcs("gemm", dtype=self._dtype)
        found = product(1, weight.T, rows.astype(self._dtype, copy=False).T, trans_a=1)
        return np.ascontiguousarray(found.T, dtype=np.float64)

    def result(self) -> LayerFit:
        """Return the refitted layer.

        Moments and means are shrunk as those of other fits: see `metrics.target.fit_target`.
        """
        layer, last = self._layer, self._layer.last
        statistics = self._seen.result()
        moments = statistics.moments
        assert isinstance(moments, DenseMoments)
        intensity = max(statistics.intensity, statistics.centred_intensity)
        intensity = max(1 - (1 - intensity) ** 2, MIN_INTENSITY)
        mean, n = moments.mean[0], self._positions
        lack_mean = self._lack_mean / n
        moment = moments.second[0] - np.outer(mean, mean)
        cross = self._lack / n - np.outer(lack_mean, mean)
        size = len(moment)
        energy = float(np.trace(moment)) / size
        change = np.zeros_like(cross)
        if energy > 0:
            shrunk = (1 - intensity) * moment + intensity * energy * np.eye(size)
            factor = linalg.cho_factor(shrunk, check_finite=False)
            change = (1 - intensity) * linalg.cho_solve(factor, cross.T, check_finite=False).T
        trust = 1 - statistics.mean_intensity
        fitted = np.zeros(len(lack_mean)) if layer.fit.bias is None else layer.fit.bias
        given = np.zeros(len(lack_mean)) if layer.bias is None else layer.bias
        bias = fitted + trust * (lack_mean + given - fitted - change @ mean)
        rest = self._lack_energy / n - float(lack_mean @ lack_mean)
        rest += float(np.vdot(change @ moment, change)) - 2 * float(np.vdot(change, cross))
        wanted = self._wanted / n
        norm = self._wanted_energy / n - float(wanted @ wanted)
        return replace(
            layer.fit,
            factors=last.rebuild(last.weight + change),
            bias=bias,
            error=relative_error(rest, norm),
        )
