"""Latencies of a model's layers and candidates on this machine, for a search on another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnx_lowrank.cache import Cache, default_folder, key_of
from onnx_lowrank.data import DataOptions
from onnx_lowrank.errors import ModelError
from onnx_lowrank.fitting.layer import LayerFit
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.layers import Layer, find_layers
from onnx_lowrank.measure.workload import batch_of, make_feeds
from onnx_lowrank.planning.latency import SavedLatencies, Timed
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.runtime.engines import open_engine
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.latency_source import ELSEWHERE, Group, MeasuredHere
from onnx_lowrank.search.search_space import SearchSpace, search_space
from onnx_lowrank.search.single_layer import replaced, single_layer_model, structure
from onnx_lowrank.search.synthetic import synthetic_fits
from onnx_lowrank.search.timing import Stopwatch
from onnx_lowrank.types import Feeds, ModelSource, Progress, silent

# Of each layer's multiply-adds, what the candidates of a whole model keep at least.
LEVELS = (0.5, 0.25, 0.0)


@dataclass(frozen=True, eq=False)
class _Timings:
    """A layer's candidates, their shares of its multiply-adds, and latencies of some by place."""

    fits: Sequence[LayerFit]
    shares: Sequence[float]
    dense: Timed
    timed: Mapping[int, Timed]

    def fastest(self, least: float) -> int | None:
        """Return the place of the fastest that pays and has that share of multiply-adds or more."""
        places = [p for p, t in self.timed.items() if t.pays and self.shares[p] >= least]
        return min(places, key=lambda place: self.timed[place].ratio, default=None)


def measure_latencies(
    model: ModelSource,
    *,
    engine: str = "cpu",
    threads: int | None = None,
    batch: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    cache_dir: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> SavedLatencies:
    """Time a model's layers, their candidates and some whole models on this machine.

    The candidates are those of a search; their values are random, so that neither data nor fits are
    needed.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model; not changed.
    engine : {"cpu", "cuda", "openvino"}
        Where it will run.
    threads : int, optional
        Threads of the deployment; the engine's own choice by default.
    batch : int, optional
        Samples at once; the number that the model fixes, or 1, by default.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open.
    cache_dir : path, optional
        Where latencies are cached, so that a killed run goes on; the user's cache by default.
    seed : int
        Fixes inputs and orders.
    progress : callable
        Called with a sentence, the number of steps done, and their total.

    Raises
    ------
    ModelError, DataError, ProviderError
        If an input is at fault; the message names the remedy.
    """
    where = open_engine(engine, threads)
    where.require()
    original = open_model(model)
    listed = find_layers(original, check_values=True)
    names = [layer.name for layer in listed if layer.reason is None]
    prepared, _ = normalised(original, names)
    found, reasons = search_space(
        find_layers(prepared, input_shapes=input_shapes, check_values=True)
    )
    if not found:
        why = next(iter(reasons.values()), "it has none")
        raise ModelError(f"the model has no layer that a search would look at: {why}")
    feeds = make_feeds(original, batch, DataOptions(input_shapes=input_shapes, seed=seed))
    stopwatch = Stopwatch(where, seed)
    store = Cache((cache_dir or default_folder()) / "search")
    samples = batch_of(original, feeds)
    layers, known = _time_candidates(prepared, found, samples, stopwatch, store, progress)
    whole, assembled = _time_assembled(original, prepared, layers, feeds, stopwatch, input_shapes)
    return SavedLatencies(
        model=model_key(original, feeds),
        name=Path(model).name if isinstance(model, str | os.PathLike) else "the model",
        machine=describe_machine(),
        provider=engine,
        threads=threads,
        batch=samples,
        input_shapes=input_shapes or {},
        whole=whole,
        assembled=assembled,
        known=known,
    )


def model_key(original: onnx.ModelProto, feeds: Feeds) -> str:
    """Return the key of what the latencies of a model depend on, besides the machine."""
    shapes = sorted((name, value.shape, str(value.dtype)) for name, value in feeds.items())
    return key_of("model", structure(original), shapes)


def _time_candidates(
    prepared: onnx.ModelProto,
    found: SearchSpace,
    samples: int,
    stopwatch: Stopwatch,
    store: Cache,
    progress: Progress,
) -> tuple[dict[str, _Timings], dict[str, Timed]]:
    fits: dict[str, list[LayerFit]] = {}
    groups = []
    for name, (layer, schemes) in found.items():
        assert layer.spec is not None
        fits[name] = [fit for each in schemes for fit in synthetic_fits(name, each, layer.spec)]
        groups.append(_group(prepared, layer, fits[name], samples))
    here = MeasuredHere(stopwatch, store)
    rough = here.roughly(groups, progress=progress)
    timings, known = {}, {}
    for done, (name, tried) in enumerate(fits.items()):
        progress("timing candidates", done, len(fits))
        group, (dense, may_pay) = groups[done], rough[done]
        timed = here.precisely(group, sorted(may_pay))
        shares = (group.macs / (found[name][0].macs or 1)).tolist()
        timings[name] = _Timings(tried, shares, dense, timed)
        known[group.key(ELSEWHERE)] = dense
        for place, each in timed.items():
            known[group.key(ELSEWHERE, group.build(place))] = each
    return timings, known


def _group(
    prepared: onnx.ModelProto, layer: Layer, fits: Sequence[LayerFit], samples: int
) -> Group:
    """Return all structures that fits of a layer may have as models."""
    single, spec = single_layer_model(prepared, layer, batch=samples), layer.spec
    assert spec is not None
    return Group(
        single,
        [(fit.scheme.name, STANDARD.name) for fit in fits],
        np.array([float(fit.scheme.macs(spec) or 1) for fit in fits]),
        lambda place: replaced(single, Candidate(fits[place], STANDARD)),
    )


def _time_assembled(
    original: onnx.ModelProto,
    prepared: onnx.ModelProto,
    layers: Mapping[str, _Timings],
    feeds: Feeds,
    stopwatch: Stopwatch,
    input_shapes: Mapping[str, tuple[int, ...]] | None,
) -> tuple[Timed, tuple[tuple[float, Timed], ...]]:
    """Time the original and whole models of its layers' candidates, with what the layers save."""
    models, saved = [original], []
    for level in LEVELS:
        picks = {name: layer.fastest(level) for name, layer in layers.items()}
        chosen = {name: place for name, place in picks.items() if place is not None}
        if not chosen:
            continue
        fits = {name: layers[name].fits[place] for name, place in chosen.items()}
        replacements = {name: Candidate(fit, STANDARD).replacement for name, fit in fits.items()}
        models.append(replace_layers(prepared, replacements, input_shapes=input_shapes)[0])
        seconds = [(layers[n].dense.seconds, layers[n].timed[p].seconds) for n, p in chosen.items()]
        saved.append(sum(dense - candidate for dense, candidate in seconds))
    original_timed, *timed = stopwatch.compare(models, feeds)
    predicted = [1 - each / original_timed.seconds for each in saved]
    return original_timed, tuple(zip(predicted, timed, strict=True))
