"""Fits of a model's layers by schemes, made when a search asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_lowrank.fitting.cluster import fit_on_cluster
from onnx_lowrank.fitting.layer import LayerFit, exact_fit
from onnx_lowrank.fitting.parallel import LayerTask, fit_all
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import layer_bias, layer_weight
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.dense import Dense
from onnx_lowrank.search.candidate import Candidate, Option
from onnx_lowrank.search.context import SearchContext


class LayerFits:
    """The fits that are known, and what makes more of them.

    Parameters
    ----------
    context : SearchContext
        Where fits are made and cached.
    tasks : mapping of str to LayerTask
        What the schemes of each layer are fitted to.

    Attributes
    ----------
    tasks : mapping of str to LayerTask
        As given.
    failed : dict of str to str
        Why layers have no fit of their own, by name.
    """

    def __init__(self, context: SearchContext, tasks: Mapping[str, LayerTask]) -> None:
        self.tasks = tasks
        self.failed: dict[str, str] = {}
        self._context = context
        self._known: dict[str, dict[str, LayerFit | None]] = {name: {} for name in tasks}
        self._layers = {layer.name: layer for layer in context.layers}
        self._editor = GraphEditor(context.normalised)

    def make(self, wanted: Mapping[str, Sequence[Scheme]]) -> None:
        """Fit layers by some schemes, where that was not tried yet."""
        context = self._context
        missing = {
            name: tuple(each for each in schemes if each.spec not in self._known[name])
            for name, schemes in wanted.items()
        }
        tasks = [replace(self.tasks[name], schemes=each) for name, each in missing.items() if each]
        if not tasks:
            return
        options = context.options
        with context.seconds.step("fits"):
            if options.cluster is not None:
                fit_on_cluster(
                    options.cluster,
                    tasks,
                    context.store,
                    seed=options.seed,
                    progress=context.progress,
                )
            found, failed = fit_all(
                tasks,
                context.store,
                seed=options.seed,
                jobs=options.jobs,
                progress=context.progress,
            )
        for task in tasks:
            made = {fit.scheme.spec: fit for fit in found.get(task.name, ())}
            self._known[task.name] |= {s.spec: made.get(s.spec) for s in task.schemes}
        self.failed |= {name: why for name, why in failed.items() if not self.of(name)}

    def of(self, name: str) -> dict[str, LayerFit]:
        """Return the fits of a layer that were made, by the specification of the scheme."""
        return {spec: fit for spec, fit in self._known.get(name, {}).items() if fit is not None}

    def dense(self, name: str) -> LayerFit:
        """Return a layer as it is, as a fit without error."""
        layer = self._layers[name]
        weight, bias = layer_weight(self._editor, layer), layer_bias(self._editor, layer)
        return exact_fit(name, weight, bias)

    def candidates(self, options: Mapping[str, Option]) -> dict[str, Candidate]:
        """Return options with their fits, by layer name; a layer whose fit fails is left out."""
        schemes = {n: [o.scheme] for n, o in options.items() if not isinstance(o.scheme, Dense)}
        self.make(schemes)
        found = {}
        for name, option in options.items():
            made = self.of(name).get(option.scheme.spec)
            fit = made if name in schemes else self.dense(name)
            if fit is not None:
                found[name] = Candidate(fit, option.form)
        return found
