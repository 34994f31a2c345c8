"""Layers whose candidates are timed once on a machine, to know what other layers take there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.estimation.int8 import chain_of_quantised, quantised
from onnx_lowrank.estimation.kept import FORMAT, keep_latencies
from onnx_lowrank.estimation.latency_model import LatencyModel, Sample, fit_latencies
from onnx_lowrank.estimation.work import work_of
from onnx_lowrank.fitting.layer import exact_fit
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.forms import STANDARD, forms_for
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.dense import Dense, DenseFactors
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.candidate_schemes import candidate_schemes
from onnx_lowrank.search.single_layer import layer_feeds, replaced, single_layer_model
from onnx_lowrank.search.synthetic import synthetic_fits
from onnx_lowrank.search.timing import Stopwatch
from onnx_lowrank.types import Progress

# Channels in and out, kernel, size of the input, step.
CONVS = (
    (3, 32, 3, 96, 1),
    (16, 16, 3, 64, 1),
    (32, 64, 3, 48, 1),
    (64, 64, 3, 56, 1),
    (128, 128, 3, 28, 1),
    (128, 256, 3, 28, 2),
    (256, 256, 3, 14, 1),
    (512, 512, 3, 7, 1),
    (64, 64, 5, 14, 1),
    (64, 256, 1, 28, 1),
    (256, 64, 1, 28, 1),
    (512, 512, 1, 14, 1),
    (1024, 256, 1, 7, 1),
)
PRODUCTS = ((256, 256), (1024, 1000), (4096, 1024))  # fully connected, channels in and out
INT8 = ((32, 3, 48), (64, 3, 56), (128, 3, 28), (256, 3, 14), (256, 1, 28), (512, 1, 14))
SHARES = (0.5, 0.2, 0.07)  # of the multiply-adds, at which candidates are timed
ROUNDS = 3


def machine_latencies(
    stopwatch: Stopwatch, forms: Sequence[Form], store: Cache, *, progress: Progress
) -> LatencyModel:
    """Return the latency model of this machine, fitted once and kept in the cache.

    Parameters
    ----------
    stopwatch : Stopwatch
        Times models in the engine of the deployment.
    forms : sequence of Form
        Those that candidates may have.
    store : Cache
        Keeps the model.
    progress : callable
        Called with a sentence, the number of layers done, and their total.
    """
    names = [form.name for form in forms]
    key = key_of("latency model", FORMAT, stopwatch.engine.settings, names)
    known = store.data(key, LatencyModel.from_dict)
    if known is not None:
        return known
    samples: list[Sample] = []
    layers = [*map(_conv, CONVS), *map(_product, PRODUCTS)]
    for done, model in enumerate(layers):
        progress("timing layers, once for this machine", done, len(layers))
        samples += _samples(model, stopwatch, forms)
    if stopwatch.engine.name == "cpu":
        samples += [_quantised(sizes, stopwatch) for sizes in INT8]
    found = fit_latencies(samples)
    store.put_data(key, found.to_dict())
    keep_latencies(store, found, forms)
    return found


def _samples(model: onnx.ModelProto, stopwatch: Stopwatch, forms: Sequence[Form]) -> list[Sample]:
    """Time a layer and some of its candidates."""
    (layer,) = find_layers(model)
    spec = layer.spec
    assert spec is not None
    single = single_layer_model(model, layer, batch=1)
    weight = np.zeros(spec.weight_shape)
    dense = exact_fit(layer.name, weight, None)
    work = [work_of(dense.factors, spec, STANDARD, spec.macs or 0)]
    models = [single]
    for scheme, form in _candidates(spec, forms):
        fit = dense if isinstance(scheme, Dense) else synthetic_fits(layer.name, scheme, spec)[0]
        work.append(work_of(fit.factors, spec, form, scheme.macs(spec) or 0))
        models.append(replaced(single, Candidate(fit, form)))
    feeds = layer_feeds(single, seed=stopwatch.seed)
    timed = stopwatch.in_turns(models, [feeds] * len(models), rounds=ROUNDS)
    name = f"{spec.weight_shape} {spec.input_size}"
    return [Sample(name, w, each.seconds) for w, each in zip(work, timed, strict=True)]


def _quantised(sizes: tuple[int, int, int], stopwatch: Stopwatch) -> Sample:
    """Time convolutions of integers one after another: alone, one would be copied to and fro."""
    channels, kernel, size = sizes
    (layer,) = find_layers(_conv((channels, channels, kernel, size, 1)))
    spec = layer.spec
    assert spec is not None
    dense = DenseFactors(np.zeros(spec.weight_shape))
    work = quantised(work_of(dense, spec, STANDARD, spec.macs or 0))
    count = 4
    model, feeds = chain_of_quantised(channels, kernel, size, count)
    (timed,) = stopwatch.in_turns([model], [feeds], rounds=ROUNDS)
    return Sample(f"int8 {sizes}", count * work, timed.seconds)


def _candidates(spec: ConvSpec, forms: Sequence[Form]) -> list[tuple[Scheme, Form]]:
    """Return candidates of every scheme in every form, near some shares of the multiply-adds."""
    found: dict[str, Scheme] = {}
    schemes = candidate_schemes(spec)
    for name in dict.fromkeys(scheme.name for scheme in schemes):
        alike = [scheme for scheme in schemes if scheme.name == name]
        shares = np.array([(scheme.macs(spec) or 1) / (spec.macs or 1) for scheme in alike])
        for share in SHARES:
            each = alike[int(np.argmin(np.abs(np.log(shares / share))))]
            found[each.spec] = each
    pairs: list[tuple[Scheme, Form]] = []
    for scheme in found.values():
        structure = type(scheme.instances(spec, None)[0])
        serving = forms_for(structure, spec, np.dtype(np.float32), forms)
        pairs += [(scheme, form) for form in serving]
    serving = forms_for(DenseFactors, spec, np.dtype(np.float32), forms)
    return pairs + [(Dense(), form) for form in serving if form is not STANDARD]


def _conv(sizes: tuple[int, int, int, int, int]) -> onnx.ModelProto:
    channels, outputs, kernel, size, step = sizes
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        name="layer",
        pads=[kernel // 2] * 4,
        strides=[step] * 2,
        kernel_shape=[kernel] * 2,
    )
    return _model(node, (1, channels, size, size), (outputs, channels, kernel, kernel))


def _product(sizes: tuple[int, int]) -> onnx.ModelProto:
    channels, outputs = sizes
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transB=1)
    return _model(node, (1, channels), (outputs, channels))


def _model(
    node: onnx.NodeProto, inputs: tuple[int, ...], weight: tuple[int, ...]
) -> onnx.ModelProto:
    values = np.random.default_rng(0).standard_normal(weight) / np.sqrt(np.prod(weight[1:]))
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
