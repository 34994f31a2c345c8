"""The frontier of time and loss, predicted from spectra and the latency model of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx

from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.estimation.error_curves import (
    POSITIONS,
    OutputSpectrum,
    output_spectrum,
    predicted_error,
)
from onnx_lowrank.estimation.int8 import quantised, rounding_noise
from onnx_lowrank.estimation.latency_model import LatencyModel
from onnx_lowrank.estimation.perturbed import Observed, PerturbedNetwork
from onnx_lowrank.estimation.ratios import dense_work, predicted_ratio, time_at_half
from onnx_lowrank.estimation.result import Estimate, LayerEstimate, Point
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer, layer_weight
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.runtime.engines import Engine
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.search.problem import Problem, Targets, fastest
from onnx_lowrank.search.search_space import SearchSpace
from onnx_lowrank.search.settings import SETTINGS
from onnx_lowrank.types import Array, Progress

IMAGES = 4  # for spectra; those of the first batch show how errors carry through the network
LEVELS_DB = (10.0, 15.0, 20.0, 25.0, 30.0, 40.0)


@dataclass(frozen=True, eq=False)
class Network:
    """What an estimate is of.

    Attributes
    ----------
    model : onnx.ModelProto
        The model, its layers normalised.
    layers : sequence of Layer
        All of them, their sizes known.
    space : dict of str to (Layer, schemes)
        Those that a search would look at.
    seconds : float
        What the model takes.
    """

    model: onnx.ModelProto
    layers: Sequence[Layer]
    space: SearchSpace
    seconds: float


def estimate_frontier(
    network: Network,
    dataset: Dataset,
    latencies: LatencyModel,
    *,
    forms: Sequence[Form],
    engine: Engine,
    progress: Progress,
) -> Estimate:
    """Predict the fastest models at several losses.

    A layer's loss follows from the spectrum of its outputs, what becomes of it from one run with
    the outputs changed by as much; times are those of the latency model.

    Parameters
    ----------
    network : Network
        What is estimated.
    dataset : Dataset
        Samples, of which the first few are taken.
    latencies : LatencyModel
        Of this machine.
    forms : sequence of Form
        Those that candidates may have.
    engine : Engine
        Where the model runs.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    DataError
        There are fewer than two samples.
    ModelError
        The model does not run, or has no float output.
    """
    batches = list(islice(dataset, max(IMAGES // max(dataset.batch, 1), 2)))
    samples = sum(batch.samples for batch in batches)
    if samples < 2:
        raise DataError("an estimate takes 2 samples or more; add data")
    layers = [
        layer
        for layer in network.layers
        if layer.reason is None and layer.spec is not None and layer.dtype == np.float32
    ]
    perturbed = PerturbedNetwork(network.model, layers, engine)
    progress("taking spectra", 0, 1)
    spectra, first = _spectra(perturbed, network.space, batches)
    seconds = _dense_seconds(network, latencies)
    damage, times = [], []
    for done, (name, spectrum) in enumerate(spectra.items()):
        progress("changing the outputs of single layers", done, len(spectra))
        layer, schemes = network.space[name]
        errors, ratios = _candidates(layer, schemes, spectrum, latencies, forms)
        carried = _carried(perturbed, layer, spectrum, first) if len(errors) else np.inf
        if np.isfinite(carried):
            damage.append(np.concatenate(([0.0], carried * errors**2)))
            times.append(np.concatenate(([1.0], ratios)) * seconds[name])
    return Estimate(
        seconds=network.seconds,
        frontier=_frontier(network.seconds, damage, times, latencies),
        int8=_int8(network, layers, latencies, seconds, perturbed, first),
        layers=tuple(
            LayerEstimate(
                name,
                seconds[name] / network.seconds,
                time_at_half(layer.spec, schemes, latencies, forms),
            )
            for name, (layer, schemes) in network.space.items()
            if layer.spec is not None
        ),
        spread=latencies.spread,
        samples=samples,
    )


def _spectra(
    perturbed: PerturbedNetwork, space: SearchSpace, batches: Sequence[Batch]
) -> tuple[dict[str, OutputSpectrum], Observed]:
    """Return the spectra of layers' outputs, where known, and what the first batch gave."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[Array]] = {}
    first = None
    for batch in batches:
        seen = perturbed.observe(batch)
        first = first or seen
        for name, (layer, schemes) in space.items():
            if (
                name not in seen.written
                or not schemes
                or layer.spec is None
                or layer.spec.group > 1
            ):
                continue
            values = np.moveaxis(seen.written[name], _axis(layer), -1)
            for image in values[: batch.samples]:
                each = image.reshape(-1, values.shape[-1])
                rows.setdefault(name, []).append(each[rng.permutation(len(each))[:POSITIONS]])
    assert first is not None
    found = {name: output_spectrum(each) for name, each in rows.items()}
    return {name: spectrum for name, spectrum in found.items() if spectrum is not None}, first


def _carried(
    perturbed: PerturbedNetwork, layer: Layer, spectrum: OutputSpectrum, first: Observed
) -> float:
    """Return the noise of the outputs over the squared error of a layer."""
    rank = int(np.argmin(np.abs(spectrum.left - SETTINGS.probe_error**2)))
    change, lost = spectrum.change(first.written[layer.name], rank, _axis(layer))
    return perturbed.noise(first, {layer.name: change}) / lost if lost > 0 else 0.0


def _candidates(
    layer: Layer,
    schemes: Sequence[Scheme],
    spectrum: OutputSpectrum,
    latencies: LatencyModel,
    forms: Sequence[Form],
) -> tuple[Array, Array]:
    """Return errors, and times over the layer's own, of the candidates that are faster."""
    assert layer.spec is not None
    found = []
    for scheme in schemes:
        error = predicted_error(scheme, layer.spec, spectrum)
        if error is not None:
            ratio = predicted_ratio(layer.spec, scheme, latencies, forms)
            found += [(error, ratio)] if ratio < 1 else []
    pairs = np.array(found).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _dense_seconds(network: Network, latencies: LatencyModel) -> dict[str, float]:
    """Return what layers take in the network: no more than all of its time together."""
    found = {
        layer.name: latencies.seconds(dense_work(layer.spec))
        for layer in network.layers
        if layer.spec is not None and layer.spec.macs is not None
    }
    scale = min(network.seconds / max(sum(found.values()), 1e-12), 1.0)
    return {name: scale * each for name, each in found.items()}


def _frontier(
    seconds: float, damage: Sequence[Array], times: Sequence[Array], latencies: LatencyModel
) -> tuple[Point, ...]:
    """Return the fastest picks at every level of loss where any are faster."""
    nothing = tuple(np.zeros(len(each)) for each in damage)
    problem = Problem(
        damage=tuple(damage),
        latency=tuple(each - each[0] for each in times),
        macs=nothing,
        params=nothing,
        base_latency=seconds,
        base_macs=1.0,
        base_params=1.0,
    )
    points = []
    for level in LEVELS_DB if damage else ():
        picks = fastest(problem, "latency", Targets(), 10 ** (-level / 10))
        if picks is not None and any(picks):
            new = [each[pick] for each, pick in zip(times, picks, strict=True) if pick]
            points.append(_point(level, problem.predicted_ratio(picks), new, seconds, latencies))
    return tuple(points)


def _int8(
    network: Network,
    layers: Sequence[Layer],
    latencies: LatencyModel,
    seconds: Mapping[str, float],
    perturbed: PerturbedNetwork,
    first: Observed,
) -> Point | None:
    """Return the model with all Convs in 8-bit integers, where their time is known."""
    rng = np.random.default_rng(0)
    editor = GraphEditor(network.model)
    saved, changes, new = 0.0, {}, []
    for layer in layers:
        if layer.op != "Conv" or layer.name not in seconds or layer.name not in first.read:
            continue
        assert layer.spec is not None
        dense = dense_work(layer.spec)
        work = quantised(dense)
        if not latencies.knows(work):
            continue
        new.append(seconds[layer.name] * latencies.seconds(work) / latencies.seconds(dense))
        saved += seconds[layer.name] - new[-1]
        sd = np.sqrt(rounding_noise(layer_weight(editor, layer), first.read[layer.name]))
        values = rng.standard_normal(first.written[layer.name].shape, dtype=np.float32)
        changes[layer.name] = values * sd.astype(np.float32).reshape(-1, *[1] * (values.ndim - 2))
    if not changes:
        return None
    level = float(-10 * np.log10(max(perturbed.noise(first, changes), 1e-12)))
    return _point(level, 1 - saved / network.seconds, new, network.seconds, latencies)


def _point(
    level: float, ratio: float, new: Sequence[float], seconds: float, latencies: LatencyModel
) -> Point:
    """Return a point; predicted times of replaced layers are each off on their own."""
    off = float(np.log(latencies.spread) * np.sqrt(np.sum(np.square(new))) / seconds)
    return Point(level, float(ratio), max(float(ratio) - off, 0.0), float(ratio) + off, len(new))


def _axis(layer: Layer) -> int:
    """Return the axis of a layer's output that its channels are along."""
    return 1 if layer.op == "Conv" else -1
