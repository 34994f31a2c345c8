"""A machine whose time is its multiply-adds: with a clock, no two searches are the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnx_lowrank.data import DataOptions
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.measure.workload import make_feeds
from onnx_lowrank.planning.latency import SavedLatencies, Timed
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.latency_source import ELSEWHERE, Group
from onnx_lowrank.search.latency_table import model_key
from onnx_lowrank.search.search_space import search_space
from onnx_lowrank.search.settings import SETTINGS, SearchSettings
from onnx_lowrank.search.single_layer import replaced, single_layer_model
from onnx_lowrank.search.synthetic import synthetic_fits


def latencies(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    settings: SearchSettings = SETTINGS,
) -> SavedLatencies:
    """Return latencies in proportion to multiply-adds; a third of them are of other nodes."""
    names = [layer.name for layer in find_layers(model)]
    prepared, _ = normalised(model, names)
    known = {}
    total = 0.0
    layers = find_layers(prepared, input_shapes=input_shapes)
    for name, (layer, schemes) in search_space(layers, settings=settings)[0].items():
        spec = layer.spec
        assert spec is not None
        assert spec.macs is not None
        fits = [fit for scheme in schemes for fit in synthetic_fits(name, scheme, spec)]
        single = single_layer_model(prepared, layer, batch=1)
        seconds = 1e-10 * spec.macs
        group = Group(single, [], np.zeros(0), [single].__getitem__)
        known[group.key(ELSEWHERE)] = Timed(seconds, 1.0, 1.0, 1.0)
        for fit in fits:
            ratio = (fit.scheme.macs(spec) or 0) / spec.macs
            other = replaced(single, Candidate(fit, STANDARD))
            known[group.key(ELSEWHERE, other)] = Timed(seconds * ratio, ratio, ratio, ratio)
        total += seconds
    return SavedLatencies(
        model=model_key(model, make_feeds(model, None, DataOptions(input_shapes=input_shapes))),
        name="net",
        machine={**describe_machine(), "cpu": "one that counts multiply-adds"},
        provider="cpu",
        threads=1,
        batch=1,
        input_shapes=dict(input_shapes or {}),
        whole=Timed(1.5 * total, 1, 1, 1),
        assembled=(),
        known=known,
    )
