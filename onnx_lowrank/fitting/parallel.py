"""Fits of all candidates of a layer, in parallel over layers, each cached as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import OutputError
from onnx_lowrank.fitting.arrays import FORMAT, from_arrays, to_arrays
from onnx_lowrank.fitting.layer import FitProblem, LayerFit, fit_layer_by_schemes
from onnx_lowrank.layer_errors import LAYER_ERRORS, layer_reason
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.metrics.target import fit_target
from onnx_lowrank.processes import without_interrupts
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.base import Weight
from onnx_lowrank.types import Progress


@dataclass(frozen=True, eq=False)
class LayerTask:
    """A layer to be fitted by several schemes.

    Attributes
    ----------
    name : str
        The layer.
    weight : ndarray, shape (F, C / group, *kernel), float64
        Its weight.
    bias : ndarray, shape (F,), or None
        Its bias.
    group : int
        Its groups.
    statistics : mapping
        Statistics by layer name; read where the fits are made.
    digest : str
        Key of the layer's own statistics.
    schemes : tuple of Scheme
        What to fit.
    """

    name: str
    weight: Weight
    bias: NDArray[np.float64] | None
    group: int
    statistics: Mapping[str, LayerStatistics]
    digest: str
    schemes: tuple[Scheme, ...]

    @property
    def conv(self) -> ConvSpec:
        """What the layer's weight says of it; windows and sizes are not in it."""
        outputs, inputs, *kernel = self.weight.shape
        axes = len(kernel)
        return ConvSpec(
            in_channels=inputs * self.group,
            out_channels=outputs,
            kernel=tuple(kernel),
            strides=(1,) * axes,
            dilations=(1,) * axes,
            pads=(0,) * 2 * axes,
            group=self.group,
        )

    def keys(self, seed: int) -> tuple[str, ...]:
        """Return the key of every scheme's fit."""
        bias = b"" if self.bias is None else self.bias.tobytes()
        common = (FORMAT, self.name, self.weight.tobytes(), bias, self.group, self.digest, seed)
        head = key_of("fit", *common)
        return tuple(key_of(head, scheme.spec) for scheme in self.schemes)

    def fit_problem(self) -> FitProblem:
        """Return what the schemes approximate."""
        target = fit_target(self.statistics[self.name], self.weight, self.bias)
        return FitProblem(target.weight, target.metric, target.bias, self.group)


def fit_all(
    tasks: Sequence[LayerTask], store: Cache, *, seed: int, jobs: int, progress: Progress
) -> tuple[dict[str, tuple[LayerFit, ...]], dict[str, str]]:
    """Fit every scheme of every layer; what the store holds is not fitted again.

    A scheme whose fit fails is left out, and so is a layer of which all fail.

    Parameters
    ----------
    tasks : sequence of LayerTask
        What to fit.
    store : Cache
        Caches fits, each as soon as it is done.
    seed : int
        Fixes every random choice.
    jobs : int
        Processes; each fits one layer at a time.
    progress : callable
        Called with a sentence, the number of layers done, and their total.

    Returns
    -------
    fits : dict of str to tuple of LayerFit
        By layer name, in the order of its schemes.
    failed : dict of str to str
        Why layers have none, by name.
    """
    # The largest first, so that none is left for one process at the end.
    missing = unfitted(tasks, store, seed)
    ordered = sorted(missing, key=lambda p: p.weight.size * p.weight[0].size, reverse=True)
    work = (delayed(_fit_layer)(task, store, seed) for task in ordered)
    runner = Parallel(n_jobs=jobs, return_as="generator_unordered")
    stored = len(tasks) - len(missing)
    progress("fitting candidates", stored, len(tasks))
    reasons: dict[str, str] = {}
    with without_interrupts():
        results = runner(work)
    for done, (name, reason) in enumerate(results, start=stored + 1):
        progress("fitting candidates", done, len(tasks))
        if reason is not None:
            reasons[name] = reason
    found = {p.name: tuple(_read(store, p, seed)) for p in tasks}
    fits = {name: each for name, each in found.items() if each}
    lost = next((name for name in found if name not in fits and name not in reasons), None)
    if lost is not None:
        raise OutputError(
            f"the fits of {lost} cannot be read back from {store.folder}; check the disk, or "
            "choose another folder by ONNX_LOWRANK_CACHE"
        )
    return fits, {name: reasons[name] for name in found if name not in fits}


def unfitted(tasks: Sequence[LayerTask], store: Cache, seed: int) -> tuple[LayerTask, ...]:
    """Return the tasks with those of their schemes of which the store has no fit."""
    found = []
    for task in tasks:
        pairs = zip(task.keys(seed), task.schemes, strict=True)
        schemes = [s for key, s in pairs if _stored(store, key, task, s) is None]
        if schemes:
            found.append(replace(task, schemes=tuple(schemes)))
    return tuple(found)


def _fit_layer(task: LayerTask, store: Cache, seed: int) -> tuple[str, str | None]:
    """Cache the fits of a layer in the store; return its name, and why some are not there."""
    schemes = list(zip(task.keys(seed), task.schemes, strict=True))
    reasons: list[str] = []
    try:
        to_fit = task.fit_problem()
    except LAYER_ERRORS as error:
        return task.name, layer_reason(error)
    for key, fit in fit_each(task.name, schemes, to_fit, seed=seed, reasons=reasons):
        store.put_arrays(key, to_arrays(fit))
    return task.name, reasons[0] if reasons else None


def fit_each(
    layer: str,
    schemes: Sequence[tuple[str, Scheme]],
    problem: FitProblem,
    *,
    seed: int,
    reasons: list[str],
) -> Iterator[tuple[str, LayerFit]]:
    """Fit one layer by several schemes with their keys; a scheme that fails is left out.

    Yields the key and the fit of the others; the reasons of the failures are added to `reasons`.
    """
    waiting = list(schemes)
    while waiting:
        fits = fit_layer_by_schemes(layer, [scheme for _, scheme in waiting], problem, seed=seed)
        try:
            for fit in fits:
                yield waiting.pop(0)[0], fit
        except LAYER_ERRORS as error:
            waiting.pop(0)
            reasons.append(layer_reason(error))


def _read(store: Cache, task: LayerTask, seed: int) -> Iterator[LayerFit]:
    for key, scheme in zip(task.keys(seed), task.schemes, strict=True):
        fit = _stored(store, key, task, scheme)
        if fit is not None:
            yield fit


def _stored(store: Cache, key: str, task: LayerTask, scheme: Scheme) -> LayerFit | None:
    return store.arrays(key, partial(from_arrays, task.name, scheme, task.conv))
