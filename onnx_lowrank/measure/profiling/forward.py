"""Where the time of a forward pass goes, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_lowrank.bounds import (
    MOST_REPEATS,
    MOST_WORKERS,
    check_count,
    check_number,
)
from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.measure.profiling.result import UNATTRIBUTED, ModelProfile, ProfileReport, Row
from onnx_lowrank.measure.workload import Workload, batch_of
from onnx_lowrank.runtime import Provider, check_provider, require_provider
from onnx_lowrank.runtime.attribution import assign_rows, attribute
from onnx_lowrank.runtime.bench import drift
from onnx_lowrank.runtime.machine import NoiseMeter, describe_machine
from onnx_lowrank.runtime.peak import measure_peak
from onnx_lowrank.runtime.profile import Executed, Recorder, Recording
from onnx_lowrank.runtime.statistics import Latency
from onnx_lowrank.types import Feeds, Progress, silent

MIN_RUNS = 2


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Where models are profiled, and how often they run.

    Attributes
    ----------
    provider : {"cpu", "cuda"}
        Where onnxruntime runs them.
    threads : int, optional
        Intra-op threads; onnxruntime's own choice by default.
    runs : int
        Runs to take mean and standard deviation of, `MIN_RUNS` or more.

    Raises
    ------
    OnnxLowRankError
        A number is out of range.
    """

    provider: Provider = "cpu"
    threads: int | None = None
    runs: int = 8

    def __post_init__(self) -> None:
        check_number(
            "runs",
            self.runs,
            f"a standard deviation needs {MIN_RUNS} or more, up to {MOST_REPEATS}",
            OnnxLowRankError,
            least=MIN_RUNS,
            most=MOST_REPEATS,
        )
        check_count("threads", self.threads, OnnxLowRankError, most=MOST_WORKERS)


def require_profiler(provider: Provider) -> tuple[str, ...]:
    """Make ready what is profiled on, before any work; return what of it a report says.

    Raises
    ------
    ProviderError
        It is missing or does not work.
    """
    check_provider(provider)
    if provider != "cuda":
        return ()
    # CUDA reads this when it starts: the profiler would else see launches end, not kernels.
    os.environ.setdefault("CUDA_LAUNCH_BLOCKING", "1")
    require_provider(provider)
    return (
        "every kernel was waited for (CUDA_LAUNCH_BLOCKING=1), in all runs",
        "on CUDA: TF32 off, cuDNN's algorithms by exhaustive search, one stream",
    )


def profile_models(
    workloads: Sequence[Workload],
    feeds: Feeds,
    settings: ProfileSettings,
    *,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> ProfileReport:
    """Measure the time of every layer of one model, or of two by turns.

    Parameters
    ----------
    workloads : sequence of Workload
        A model, and possibly one made from it.
    feeds : mapping of str to ndarray
        Inputs of one run.
    settings : ProfileSettings
        Where they run, and how often.
    notes : sequence of str
        What the report says of that, as of `require_profiler`.
    progress : callable
        Called with a sentence, the number of runs done, and their total.

    Raises
    ------
    ProviderError
        The provider was not used.
    ModelError
        A model cannot be run.
    """
    provider, threads, runs = settings.provider, settings.threads, settings.runs
    samples = batch_of(workloads[0].model, feeds)
    named = [name_nodes(workload.model) for workload in workloads]
    recorders = [Recorder(proto, feeds, provider=provider, threads=threads) for proto in named]
    meter = NoiseMeter(one_thread=threads == 1 and provider == "cpu")
    for run in range(runs):
        progress(f"run {run + 1}", run, runs)
        for recorder in recorders:
            meter.start()
            recorder.run()
            meter.stop()
    progress("measuring the peak", runs, runs)
    profiles: list[ModelProfile] = []
    for workload, proto, recorder in zip(workloads, named, recorders, strict=True):
        owners = [row.name for row in profiles[0].rows if row.layer] if profiles else []
        recording = recorder.close()
        profiles.append(_profile(workload.name, proto, recording, feeds, samples, owners))
    return ProfileReport(
        model=profiles[0],
        compared=profiles[1] if len(profiles) > 1 else None,
        provider=provider,
        threads=threads,
        batch=samples,
        runs=runs,
        peak=measure_peak(provider=provider, threads=threads),
        machine=describe_machine(),
        noise=meter.result(
            block_spread=max(Latency.of(model.wall).spread for model in profiles),
            drift=max(drift(model.wall) for model in profiles),
        ),
        notes=tuple(notes),
        session=recorders[0].settings,
    )


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every node has a name of its own: by its first output if need be."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = {node.name for node in copy.graph.node}
    seen: set[str] = set()
    for node in copy.graph.node:
        if not node.name or node.name in seen:
            name = base = next((o for o in node.output if o), node.op_type)
            number = 2
            while name in taken:
                name, number = f"{base}_{number}", number + 1
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return copy


def _profile(
    name: str,
    model: onnx.ModelProto,
    recording: Recording,
    feeds: Feeds,
    samples: int,
    owners: Collection[str],
) -> ModelProfile:
    """Sum what was executed by row.

    `model` has a name for every node; `owners` are the layers of the model that it was made from.
    """
    graph = model.graph
    found = find_layers(model, input_shapes={name: value.shape for name, value in feeds.items()})
    by_output = {output: layer for layer in found for output in layer.node.output[:1] if output}
    layers = {
        node.name: by_output[node.output[0]].name
        for node in graph.node
        if node.output and node.output[0] in by_output
    }
    row_of = assign_rows(graph, layers, owners)
    layer_rows = {row_of[node] for node in layers} | set(owners)
    executed: dict[str, list[Executed]] = {row: [] for row in row_of.values()}
    ran = attribute(graph, recording.optimised, row_of, layer_rows)
    for node in recording.nodes:
        executed.setdefault(ran.get(node.name) or UNATTRIBUTED, []).append(node)

    ops = {node.name: node.op_type for node in graph.node}
    ops |= {layers[node]: ops[node] for node in layers}
    for node in graph.node:  # what became of a layer is called by its first node's op
        ops.setdefault(row_of[node.name], node.op_type)
    macs: dict[str, int | None] = {}
    for node in graph.node:
        row = row_of[node.name]
        layer = by_output.get(node.output[0]) if node.output else None
        if layer is not None:
            one = layer.macs
            so_far = macs.get(row, 0)
            macs[row] = None if one is None or so_far is None else so_far + samples * one
        elif not is_op(node) and row in layer_rows:
            macs[row] = None  # the arithmetic of a custom node is not known here

    runs = len(recording.wall)
    seconds = {
        row: np.sum([node.seconds for node in nodes], axis=0) if nodes else np.zeros(runs)
        for row, nodes in executed.items()
    }
    total = float(sum(times.mean() for times in seconds.values()))
    rows = tuple(
        Row(
            name=row,
            op=ops.get(row, ""),
            layer=row in layer_rows,
            seconds=times,
            share=float(times.mean()) / total if total else 0.0,
            macs=macs.get(row),
            nodes=tuple(executed[row]),
        )
        for row, times in seconds.items()
        # A node without time was folded into a constant or an alias when the model was loaded.
        if executed[row] or row in layer_rows
    )
    return ModelProfile(name, rows, recording.wall, recording.profiled_wall)
