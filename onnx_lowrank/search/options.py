"""The candidates of every layer, timed: those that pay, and what neighbours cost each other."""

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
from onnx_lowrank.rewriting.forms import STANDARD, forms_for
from onnx_lowrank.schemes.dense import DenseFactors
from onnx_lowrank.search.candidate import Candidate, Option
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.error_curve import predicted_errors
from onnx_lowrank.search.knapsack import Conflict
from onnx_lowrank.search.latency_source import Group, InNetwork
from onnx_lowrank.search.layer_fits import LayerFits
from onnx_lowrank.search.neighbours import Edge, Sides, Sizes, conflicts, edges
from onnx_lowrank.search.problem import worth_trying
from onnx_lowrank.search.search_space import SearchSpace
from onnx_lowrank.search.single_layer import replaced, single_layer_model
from onnx_lowrank.search.sizes import added_bytes
from onnx_lowrank.search.synthetic import synthetic_fits


@dataclass(frozen=True, eq=False)
class Options:
    """What a search chooses from.

    Attributes
    ----------
    by_layer : dict of str to tuple of Option
        The candidates of each layer that pay; those of a layer are not empty.
    in_network : InNetwork
        What the model, its layers and changes of layout take; None where nothing was timed.
    conflicts : tuple of Conflict
        What neighbours cost each other, in seconds; layers by their place in `by_layer`.
    """

    by_layer: dict[str, tuple[Option, ...]]
    in_network: InNetwork | None = None
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer, its candidates and their errors, and all as models of their own.

    A candidate whose fit is not made yet has random values: its speed does not depend on them.
    """

    layer: Layer
    candidates: list[Candidate]
    errors: list[float]
    single: onnx.ModelProto
    models: list[onnx.ModelProto]

    @property
    def group(self) -> Group:
        """What is timed."""
        spec = self.layer.spec
        assert spec is not None
        schemes = [each.fit.scheme for each in self.candidates]
        return Group(
            self.single,
            self.models,
            np.array(self.errors),
            [each.form.name for each in self.candidates],
            [scheme.name for scheme in schemes],
            np.array([float(scheme.macs(spec) or 1) for scheme in schemes]),
        )

    @property
    def ends(self) -> tuple[Sizes, Sizes]:
        """Sizes of the layer's input and output."""
        graph = self.single.graph
        first, last = (
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (graph.input[0], graph.output[0])
        )
        return first, last

    def option(self, place: int, timed: Timed) -> Option:
        """Return a candidate as an option."""
        candidate, spec = self.candidates[place], self.layer.spec
        assert spec is not None
        scheme = candidate.fit.scheme
        return Option(
            scheme,
            candidate.form,
            self.errors[place],
            timed,
            macs=scheme.macs(spec) or 0,
            params=scheme.params(spec),
            added_bytes=added_bytes(self.single, self.models[place], self.layer.weight),
        )


def timed_options(
    context: SearchContext,
    space: SearchSpace,
    fits: LayerFits,
    reasons: dict[str, str],
) -> Options:
    """Time the candidates of all layers, in all forms; reasons are added for layers without any.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    space : SearchSpace
        The layers worth a search.
    fits : LayerFits
        Those that are made; what others lose is predicted from them.
    reasons : dict of str to str
        Why layers are kept, by name.
    """
    layers = _candidates(context, space, fits, reasons)
    if not layers:
        return Options({})
    times = context.latencies.candidates([each.group for each in layers], progress=context.progress)
    plain = any(c.form.plain for each in layers for c in each.candidates)
    between = _edges(context) if plain else ()
    sizes = [edge.shape for edge in between]
    sizes += [shape for each in layers for shape in each.ends if plain and len(shape) == 4]
    bare = [context.assemble({})] if any(form.passes() for form in context.forms) else []
    context.progress("timing layers beside the model", 0, 1)
    network = context.latencies.in_network(
        [context.original, *bare],
        context.feeds(),
        [(each.single, dense) for each, (dense, _) in zip(layers, times, strict=True)],
        sizes,
    )
    found: dict[str, tuple[Option, ...]] = {}
    for place, (each, (dense, timed)) in enumerate(zip(layers, times, strict=True)):
        scale = network.layers[place] / dense.seconds
        # What a plain form saves beside the layer alone, it pays again where neighbours differ.
        reorders = sum(
            network.reorders.get(shape, 0.0)
            for shape, reordered in zip(each.ends, network.ends[place], strict=True)
            if reordered
        )
        options = [
            each.option(k, replace(one, seconds=scale * (one.seconds - dense.seconds)))
            for k, one in timed.items()
            if one.pays
        ]
        found[each.layer.name] = tuple(
            replace(o, timed=replace(o.timed, seconds=o.timed.seconds + reorders))
            if o.form.plain
            else o
            for o in options
        )
        if not options:
            reasons[each.layer.name] = "no candidate is measurably faster"
    ends = {each.layer.name: network.ends[place] for place, each in enumerate(layers)}
    found = {name: options for name, options in found.items() if options}
    paid = conflicts(between, _sides(context.layers, found, ends), list(found), network.reorders)
    return Options(found, network, paid)


def _candidates(
    context: SearchContext,
    space: SearchSpace,
    fits: LayerFits,
    reasons: dict[str, str],
) -> list[_Layer]:
    """Return the layers with their candidates as models; reasons are added for those that fail."""
    batch = batch_of(context.original, context.feeds())
    found = []
    for name, (layer, schemes) in space.items():
        spec = layer.spec
        assert spec is not None
        made = fits.of(name)
        predicted = predicted_errors(schemes, spec, {key: fit.error for key, fit in made.items()})
        tried = [scheme for scheme in schemes if scheme.spec in predicted]
        chosen = worth_trying(
            [scheme.macs(spec) or 0 for scheme in tried],
            [predicted[scheme.spec] for scheme in tried],
            slack=context.settings.cheaper_per_operation,
        )
        serving = partial(forms_for, conv=spec, dtype=layer.dtype, forms=context.forms)
        candidates, errors = [], []
        for scheme in (tried[place] for place in chosen):
            fit = made.get(scheme.spec) or synthetic_fits(name, scheme, spec)[0]
            for form in serving(type(fit.factors)):
                candidates.append(Candidate(fit, form))
                errors.append(predicted[scheme.spec])
        if forms := [form for form in serving(DenseFactors) if form is not STANDARD]:
            candidates += [Candidate(fits.dense(name), form) for form in forms]
            errors += [0.0] * len(forms)
        if not candidates:
            continue
        try:
            single = single_layer_model(context.normalised, layer, batch=batch)
            models = [replaced(single, each) for each in candidates]
        except LAYER_ERRORS as error:
            reasons[name] = layer_reason(error)
            continue
        found.append(_Layer(layer, candidates, errors, single, models))
    return found


def _edges(context: SearchContext) -> tuple[Edge, ...]:
    """Return the tensors between Convs, or a Conv and something else."""
    convs = [layer for layer in context.layers if layer.op == "Conv"]
    shapes = {name: value.shape for name, value in context.feeds().items()}
    return edges(context.normalised, convs, shapes)


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
