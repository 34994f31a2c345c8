"""The layers of a search space with all they could become, roughly timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx

from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason
from onnx_lowrank.measure.workload import batch_of
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.forms import STANDARD, forms_for
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.dense import Dense, DenseFactors
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.latency_source import Group, InNetwork, Sizes
from onnx_lowrank.search.neighbours import Edge, edges
from onnx_lowrank.search.search_space import SearchSpace
from onnx_lowrank.search.single_layer import replaced, single_layer_model
from onnx_lowrank.search.synthetic import synthetic_fits


@dataclass(frozen=True, eq=False)
class TimedLayer:
    """A layer and what it could become.

    Attributes
    ----------
    layer : Layer
        The layer.
    candidates : tuple of (Scheme, Form)
        What it could become.
    group : Group
        The same as models of one layer each.
    dense : Timed
        The layer's own latency.
    timed : dict of int to Timed
        Those of the candidates that may be faster, by place.
    """

    layer: Layer
    candidates: tuple[tuple[Scheme, Form], ...]
    group: Group
    dense: Timed
    timed: dict[int, Timed]

    @property
    def least_ratio(self) -> float:
        """The latency of the fastest candidate over the layer's own; 1 where none is faster."""
        return min((each.ratio for each in self.timed.values()), default=1.0)

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes that may be faster in some form, the layer as it is left out."""
        found = {
            scheme.spec: scheme
            for scheme, _ in (self.candidates[place] for place in sorted(self.timed))
            if not isinstance(scheme, Dense)
        }
        return tuple(found.values())

    def corrected(self, precise: Mapping[int, Timed]) -> TimedLayer:
        """Return the layer with what is known precisely of some of its candidates.

        The ratio of precise to rough latency is interpolated over multiply-adds to the others of
        the same scheme and form; candidates that are not faster after that are left out.
        """
        timed = dict(self.timed)
        work = np.log(self.group.macs)
        for _, places in self.group.alike():
            known = np.array([place for place in places if place in precise])
            if not len(known):
                continue
            off = np.log([precise[place].ratio / self.timed[place].ratio for place in known])
            for place in (int(place) for place in places if place in self.timed):
                factor = float(np.exp(np.interp(work[place], work[known], off)))
                timed[place] = precise.get(place) or self.timed[place].times(factor)
        kept = {p: t for p, t in timed.items() if (t.pays if p in precise else t.ratio < 1)}
        return replace(self, timed=kept)

    @property
    def ends(self) -> tuple[Sizes, Sizes]:
        """Sizes of the layer's input and output."""
        graph = self.group.dense.graph
        first, last = (
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (graph.input[0], graph.output[0])
        )
        return first, last


@dataclass(frozen=True, eq=False)
class TimedLayers:
    """Layers that may be faster, beside the model that they are part of.

    Attributes
    ----------
    layers : dict of str to TimedLayer
        By name.
    in_network : InNetwork
        What the model, its layers and changes of layout take; `layers` of it in the same order.
    edges : tuple of Edge
        Tensors at which a change of layout may be paid; none where no form has another.
    """

    layers: dict[str, TimedLayer]
    in_network: InNetwork
    edges: tuple[Edge, ...]

    @property
    def least_ratio(self) -> float:
        """The latency of a model of the fastest candidates, over the original's."""
        pairs = zip(self.layers.values(), self.in_network.layers, strict=True)
        saved = sum(seconds * (1 - each.least_ratio) for each, seconds in pairs)
        return 1 - saved / self.in_network.original


def timed_layers(
    context: SearchContext, space: SearchSpace, reasons: dict[str, str]
) -> TimedLayers | None:
    """Time what layers could become, roughly and before anything is fitted.

    Values are random: no speed depends on them.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    space : SearchSpace
        The layers worth a search.
    reasons : dict of str to str
        Why layers are kept, by name; those of layers that cannot be faster are added.

    Returns
    -------
    TimedLayers or None
        None where no layer can be faster.
    """
    batch = batch_of(context.original, context.feeds())
    groups: dict[str, tuple[Layer, tuple[tuple[Scheme, Form], ...], Group]] = {}
    for name, (layer, schemes) in space.items():
        candidates = _candidates(context, layer, schemes)
        if not candidates:
            continue
        try:
            group = _group(context, layer, candidates, batch)
            for _, places in group.alike():
                group.build(int(places[0]))  # one layer that cannot be written ends no search
            groups[name] = (layer, candidates, group)
        except LAYER_ERRORS as error:
            reasons[name] = layer_reason(error)
    rough = context.latencies.roughly(
        [group for _, _, group in groups.values()], progress=context.progress
    )
    layers = {
        name: TimedLayer(*what, dense, timed)
        for (name, what), (dense, timed) in zip(groups.items(), rough, strict=True)
    }
    slow = [name for name, each in layers.items() if not each.timed]
    reasons |= dict.fromkeys(slow, "no candidate is faster")
    layers = {name: each for name, each in layers.items() if each.timed}
    if not layers:
        return None
    least = f"{100 * context.settings.least_saving:.2g} %"
    for name in _negligible(context, layers):
        reasons[name] = f"with others it could save less than {least} of what all layers could"
        del layers[name]
    return TimedLayers(layers, *_in_network(context, layers))


def _candidates(
    context: SearchContext, layer: Layer, schemes: Sequence[Scheme]
) -> tuple[tuple[Scheme, Form], ...]:
    """Return the schemes in all forms that serve them, and the layer as it is in other forms."""
    spec = layer.spec
    assert spec is not None
    serving = partial(forms_for, conv=spec, dtype=layer.dtype, forms=context.forms)
    found = [(s, form) for s in schemes for form in serving(type(s.instances(spec, None)[0]))]
    found += [(Dense(), form) for form in serving(DenseFactors) if form is not STANDARD]
    return tuple(found)


def _group(
    context: SearchContext,
    layer: Layer,
    candidates: Sequence[tuple[Scheme, Form]],
    batch: int,
) -> Group:
    """Return a layer's candidates as models, which are built when they are asked for."""
    spec = layer.spec
    assert spec is not None
    single = single_layer_model(context.normalised, layer, batch=batch)

    def build(place: int) -> onnx.ModelProto:
        scheme, form = candidates[place]
        fit = synthetic_fits(layer.name, scheme, spec)[0]
        return replaced(single, Candidate(fit, form))

    formulas = [scheme.name for scheme, _ in candidates if not scheme.needs_moment]
    return Group(
        single,
        [(scheme.name, form.name) for scheme, form in candidates],
        np.array([float(scheme.macs(spec) or 1) for scheme, _ in candidates]),
        build,
        screen=formulas[-1] if formulas else "",
    )


def _negligible(context: SearchContext, layers: Mapping[str, TimedLayer]) -> list[str]:
    """Return the layers that together could save too little of what all could, the least first."""
    budget = context.budget
    if budget.objective != "latency" or any((budget.macs, budget.params, budget.size_mb)):
        return []
    saved = {name: x.dense.seconds * (1 - x.least_ratio) for name, x in layers.items()}
    left = context.settings.least_saving * sum(saved.values())
    found = []
    for name in sorted(saved, key=lambda name: saved[name]):
        left -= saved[name]
        if left < 0:
            break
        found.append(name)
    return found


def _in_network(
    context: SearchContext, layers: Mapping[str, TimedLayer]
) -> tuple[InNetwork, tuple[Edge, ...]]:
    """Time layers beside the model, and changes of layout where a form has another."""
    plain = any(form.plain for each in layers.values() for _, form in each.candidates)
    between: tuple[Edge, ...] = ()
    if plain:
        convs = [layer for layer in context.layers if layer.op == "Conv"]
        shapes = {name: value.shape for name, value in context.feeds().items()}
        between = edges(context.normalised, convs, shapes)
    sizes = [edge.shape for edge in between]
    sizes += [size for each in layers.values() for size in each.ends if plain and len(size) == 4]
    bare = [context.assemble({})] if any(form.passes() for form in context.forms) else []
    context.progress("timing layers beside the model", 0, 1)
    found = context.latencies.in_network(
        [context.original, *bare],
        context.feeds(),
        [(each.group.dense, each.dense) for each in layers.values()],
        sizes,
    )
    return found, between
