"""Whole models of some picks, fitted to the original's inputs or to their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
from joblib import Parallel, delayed

from onnx_lowrank.calibrate import calibrate
from onnx_lowrank.data import Dataset
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.metrics.target import fit_target
from onnx_lowrank.passes.absorb_permutations import AbsorbPermutationsPass
from onnx_lowrank.passes.approximate_conv import ApproximateConvPass
from onnx_lowrank.passes.base import PassManager
from onnx_lowrank.planning.fit import FitProblem, LayerFit, fit_layer
from onnx_lowrank.searching.fits import LayerProblem, from_arrays, to_arrays
from onnx_lowrank.store import Store, key_of

FORMAT = 2  # of stored refits and of the arithmetic behind them
POSITIONS = 192  # per image: a refit starts near its end, and its statistics are taken often
Progress = Callable[[str, int, int], None]
Fits = Mapping[str, LayerFit]


def assemble(
    model: onnx.ModelProto,
    fits: Fits,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> onnx.ModelProto:
    """Return a copy of a normalised model with the layers of `fits` replaced."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    values = {name: (fit.factors, fit.bias) for name, fit in fits.items()}
    PassManager(
        [ApproximateConvPass(values, input_shapes=input_shapes), AbsorbPermutationsPass(list(fits))]
    ).run(copy)
    return copy


@dataclass(frozen=True, eq=False)
class Refitter:
    """Fits layers to the original's outputs from the inputs they see in the compressed network.

    All layers at once: the inputs are those behind the first fits of the layers below, which one
    run of both models gives for all of them; refitted one by one, a network takes a run per layer.

    Attributes
    ----------
    model : onnx.ModelProto
        The original, normalised.
    dataset : Dataset
        The calibration samples.
    problems : mapping of str to LayerProblem
        What is fitted, by layer name.
    store : Store
        Where refits are kept.
    seed : int
        Seed of the choice of positions.
    jobs : int
        Processes.
    """

    model: onnx.ModelProto
    dataset: Dataset
    problems: Mapping[str, LayerProblem]
    store: Store
    seed: int
    jobs: int

    def refit(self, fits: Fits, compressed: onnx.ModelProto, *, progress: Progress) -> Fits:
        """Return fits of the same structures.

        Parameters
        ----------
        fits : mapping of str to LayerFit
            The first fits.
        compressed : onnx.ModelProto
            The model with them.
        progress : callable
            Called with a sentence, the number of steps done, and their total.
        """
        parts = [to_arrays(fit) for fit in fits.values()]
        contents = [value.tobytes() for part in parts for _, value in sorted(part.items())]
        schemes = [f"{name} {fit.scheme.spec}" for name, fit in fits.items()]
        digests = [self.problems[name].digest for name in fits]
        head = key_of("refit", FORMAT, POSITIONS, self.seed, *schemes, *digests, *contents)
        keys = {name: key_of(head, name) for name in fits}
        stored = {name: self.store.arrays(key) for name, key in keys.items()}
        if any(arrays is None for arrays in stored.values()):
            statistics = calibrate(
                self.model,
                self.dataset,
                list(fits),
                compressed=compressed,
                positions=POSITIONS,
                seed=self.seed,
                progress=progress,
            )
            work = [
                delayed(_refit)(
                    fit, self.problems[name], statistics, self.store, keys[name], self.seed
                )
                for name, fit in fits.items()
            ]
            for done, _ in enumerate(
                Parallel(n_jobs=self.jobs, return_as="generator_unordered")(work), start=1
            ):
                progress("refitting behind the layers below", done, len(work))
            stored = {name: self.store.arrays(key) for name, key in keys.items()}
        found = {}
        for name, fit in fits.items():
            arrays = stored[name]
            assert arrays is not None, f"the refit of {name} was not kept"
            found[name] = from_arrays(name, fit.scheme, arrays)
        return found


def _refit(
    fit: LayerFit,
    problem: LayerProblem,
    statistics: Mapping[str, LayerStatistics],
    store: Store,
    key: str,
    seed: int,
) -> None:
    target = fit_target(statistics[fit.layer], problem.weight, problem.bias)
    what = FitProblem(target.weight, target.metric, target.bias, problem.group)
    store.put_arrays(key, to_arrays(fit_layer(fit.layer, fit.scheme, what, seed=seed)))
