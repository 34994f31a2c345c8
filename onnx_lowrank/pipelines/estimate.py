"""`estimate`: within seconds, what low rank and 8-bit integers may give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_lowrank.cache import Cache, default_folder
from onnx_lowrank.data import DataOptions, Preprocess
from onnx_lowrank.estimation.estimate import Network, estimate_frontier
from onnx_lowrank.estimation.result import Estimate
from onnx_lowrank.estimation.sample_layers import machine_latencies
from onnx_lowrank.graph.gate import read_model
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.measure.workload import make_feeds
from onnx_lowrank.rewriting.forms import allowed_forms
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.runtime import fix_shapes, model_inputs
from onnx_lowrank.runtime.engines import open_engine
from onnx_lowrank.runtime.library import Lowering
from onnx_lowrank.search.search_space import search_space, searched
from onnx_lowrank.search.timing import Stopwatch
from onnx_lowrank.types import ModelSource, Progress, silent

ROUNDS = 2  # of the original


def estimate(
    model: ModelSource,
    *,
    data: Any,
    preprocess: Preprocess | str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    threads: int | None = None,
    engine: str = "cpu",
    lowering: Lowering = "auto",
    cache_dir: Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Estimate:
    """Predict the frontier of time and loss, without fits.

    Times are those of a latency model, which is fitted once on a machine (about 20 seconds) and
    kept; losses come from the spectra of the layers' outputs on a few samples, and from what
    becomes of errors that are added to one layer after another.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model; not changed.
    data : path, str or iterable
        Samples, of which the first few are taken, as of `onnx_lowrank.data.open_dataset`.
    preprocess, input_shapes, threads, engine, lowering, cache_dir, seed, progress
        As of `compress_to_budget`.

    Raises
    ------
    ModelError, PlanError, DataError, ProviderError
        If an input is at fault; the message names the remedy.
    """
    here = open_engine(engine, threads)
    here.require()
    original = read_model(model).model
    names, kept = searched(original)
    prepared, _ = normalised(original, names)
    forms = allowed_forms(lowering, here)
    layers = find_layers(prepared, input_shapes=input_shapes)
    samples = DataOptions(data=data, preprocess=preprocess, input_shapes=input_shapes, seed=seed)
    dataset = samples.open(fix_shapes(model_inputs(original), input_shapes or {}))
    stopwatch = Stopwatch(here, seed)
    store = Cache((cache_dir or default_folder()) / "search")
    latencies = machine_latencies(stopwatch, forms, store, progress=progress)
    feeds = make_feeds(original, None, DataOptions(input_shapes=input_shapes, seed=seed))
    (timed,) = stopwatch.in_turns([original], [feeds], rounds=ROUNDS)
    space, _ = search_space(layers, kept=kept, forms=forms)
    network = Network(prepared, layers, space, timed.seconds)
    return estimate_frontier(
        network, dataset, latencies, forms=forms, engine=here.with_threads(None), progress=progress
    )
