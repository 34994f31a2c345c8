"""What a search chooses from: every layer's candidates with errors and latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.dense import Dense
from onnx_lowrank.search.candidate import Option
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.error_curve import predicted_errors
from onnx_lowrank.search.knapsack import Conflict
from onnx_lowrank.search.latency_source import InNetwork
from onnx_lowrank.search.layer_fits import LayerFits
from onnx_lowrank.search.neighbours import Sides, conflicts
from onnx_lowrank.search.search_space import SearchSpace
from onnx_lowrank.search.settings import SearchSettings
from onnx_lowrank.search.sizes import added_bytes
from onnx_lowrank.search.timed_layers import TimedLayer, TimedLayers


@dataclass(frozen=True, eq=False)
class Options:
    """What a search chooses from.

    Attributes
    ----------
    by_layer : dict of str to tuple of Option
        The candidates of each layer that may pay; those of a layer are not empty.
    in_network : InNetwork
        What the model, its layers and changes of layout take.
    conflicts : tuple of Conflict
        What neighbours cost each other, in seconds; layers by their place in `by_layer`.
    """

    by_layer: dict[str, tuple[Option, ...]]
    in_network: InNetwork
    conflicts: tuple[Conflict, ...] = ()


def find_options(
    context: SearchContext, space: SearchSpace, timed: TimedLayers, fits: LayerFits
) -> Options:
    """Return the candidates that may pay, with their errors.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    space : SearchSpace
        The schemes of the layers.
    timed : TimedLayers
        What candidates take.
    fits : LayerFits
        Those that are made; what others lose is predicted from them.
    """
    network = timed.in_network
    found: dict[str, tuple[Option, ...]] = {}
    ends: dict[str, tuple[bool, bool]] = {}
    for place, (name, layer) in enumerate(timed.layers.items()):
        errors = _errors(layer, space[name][1], fits, context.settings)
        # What a plain form saves beside the layer alone, it pays again where neighbours differ.
        reorders = sum(
            network.reorders.get(shape, 0.0)
            for shape, reordered in zip(layer.ends, network.ends[place], strict=True)
            if reordered
        )
        options = [
            _option(context, layer, each, errors[each], network.layers[place], reorders)
            for each in _undominated(layer, errors)
        ]
        if options:
            found[name] = tuple(options)
        ends[name] = network.ends[place]
    sides = _sides(context.layers, found, ends)
    paid = conflicts(timed.edges, sides, list(found), network.reorders)
    return Options(found, network, paid)


def _errors(
    layer: TimedLayer, schemes: Sequence[Scheme], fits: LayerFits, settings: SearchSettings
) -> dict[int, float]:
    """Return the errors of a layer's candidates that may be faster, by place, where known."""
    spec = layer.layer.spec
    assert spec is not None
    made = {key: fit.error for key, fit in fits.of(layer.layer.name).items()}
    predicted = predicted_errors(schemes, spec, made, settings)
    found = {}
    for place in sorted(layer.timed):
        scheme = layer.candidates[place][0]
        error = 0.0 if isinstance(scheme, Dense) else predicted.get(scheme.spec)
        if error is not None:
            found[place] = error
    return found


def _undominated(layer: TimedLayer, errors: Mapping[int, float]) -> list[int]:
    """Return the candidates that no other one of their form clearly beats."""
    ratios = {place: layer.timed[place] for place in errors}

    def beaten(place: int) -> bool:
        return any(
            layer.candidates[other][1] is layer.candidates[place][1]
            and errors[other] <= errors[place]
            and timed.high <= ratios[place].low
            # Of two alike, the first one stays.
            and (errors[other], timed.ratio, other) < (errors[place], ratios[place].ratio, place)
            for other, timed in ratios.items()
            if other != place
        )

    return [place for place in errors if not beaten(place)]


def _option(
    context: SearchContext,
    layer: TimedLayer,
    place: int,
    error: float,
    seconds: float,
    reorders: float,
) -> Option:
    scheme, form = layer.candidates[place]
    timed, spec = layer.timed[place], layer.layer.spec
    assert spec is not None
    size = 0
    if context.budget.size_mb is not None:
        size = added_bytes(layer.group.dense, layer.group.build(place), layer.layer.weight)
    return Option(
        place,
        scheme,
        form,
        error,
        timed,
        seconds=seconds * (timed.ratio - 1) + (reorders if form.plain else 0.0),
        macs=scheme.macs(spec) or 0,
        params=scheme.params(spec),
        added_bytes=size,
    )


def _sides(
    layers: Sequence[Layer],
    options: Mapping[str, Sequence[Option]],
    ends: Mapping[str, tuple[bool, bool]],
) -> dict[str, Sides]:
    """Return at which ends of which layers tensors are plain, for every candidate.

    A layer without options stays as it is; of those that were not timed, the runtime is taken to
    have a layout of its own.
    """
    found = {}
    for layer in layers:
        forms = [option.form.plain for option in options.get(layer.name, ())]
        own = [not reordered for reordered in ends.get(layer.name, (True, True))]
        read, written = (np.array([end, *(end or plain for plain in forms)]) for end in own)
        found[layer.name] = (read, written)
    return found
