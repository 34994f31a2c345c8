"""All options of a search in numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnx_lowrank.graph.io import serialised_size
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.options import Options
from onnx_lowrank.search.problem import Problem
from onnx_lowrank.search.sizes import freed


def build_problem(
    context: SearchContext, options: Options, carried: Mapping[str, float]
) -> Problem:
    """Return all options in numbers.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    options : Options
        The candidates of the layers that have any.
    carried : mapping of str to float
        Noise of the outputs over the squared error of each layer, as of `carried_noise`.
    """
    specs = {layer.name: layer.spec for layer in context.layers}
    original = find_layers(context.original, input_shapes=context.input_shapes)
    gone = freed(original, tuple(options.by_layer))
    damage, latency, macs, params, sizes = [], [], [], [], []
    for place, (name, tried) in enumerate(options.by_layer.items()):
        spec = specs[name]
        assert spec is not None
        errors = np.array([0.0, *(option.error for option in tried)])
        damage.append(carried[name] * errors**2)
        latency.append(np.array([0.0, *(o.seconds for o in tried)]))
        macs.append(np.array([0.0, *(o.macs - (spec.macs or 0) for o in tried)]))
        params.append(np.array([0.0, *(float(o.params - gone.params[place]) for o in tried)]))
        sizes.append(np.array([0.0, *(float(o.added_bytes - gone.bytes[place]) for o in tried)]))
    network = options.in_network
    return Problem(
        damage=tuple(damage),
        latency=tuple(latency),
        macs=tuple(macs),
        params=tuple(params),
        bytes=tuple(sizes),
        base_latency=network.original,
        base_macs=float(sum(layer.macs or 0 for layer in original)),
        base_params=float(gone.base_params),
        base_bytes=float(serialised_size(context.original)),
        shared_params=gone.shared_params,
        shared_bytes=gone.shared_bytes,
        saved_latency=network.original - network.bare,
        conflicts=options.conflicts,
    )
