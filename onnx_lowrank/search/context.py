"""What a search works with: a model, a budget, samples, latencies, options, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_lowrank.cache import Cache
from onnx_lowrank.data import DataOptions, Dataset
from onnx_lowrank.graph.io import serialised_size
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.measure.score import Score
from onnx_lowrank.measure.workload import make_feeds
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.rewriting.form import Form, Replacement
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.runtime.engines import CPU, Engine
from onnx_lowrank.search.candidate import Chosen
from onnx_lowrank.search.latency_source import LatencySource
from onnx_lowrank.search.settings import SETTINGS, SearchSettings
from onnx_lowrank.step_seconds import StepSeconds
from onnx_lowrank.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a search runs.

    Attributes
    ----------
    engine : Engine
        Where models run and are timed, and on how many threads.
    jobs : int
        Processes for fits; timing never runs beside them.
    cluster : str or None
        Address of a Dask scheduler whose workers make the fits.
    seed : int
        Fixes every random choice.
    """

    engine: Engine = CPU
    jobs: int = 1
    cluster: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchSamples:
    """The samples of a search, none of which is one of the verdict.

    Attributes
    ----------
    calibration, search : Dataset
        For the statistics, and for the search's own measurements.
    verdict : int or None
        Number of samples of the verdict; that of `search` where it is None.
    """

    calibration: Dataset
    search: Dataset
    verdict: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchContext:
    """Everything a search works with.

    Attributes
    ----------
    original : onnx.ModelProto
        The model as the user has it.
    normalised : onnx.ModelProto
        The same, its layers normalised.
    layers : sequence of Layer
        Of `normalised`, their sizes known.
    budget : Budget
        What may be lost and must be gained.
    forms : sequence of Form
        Those that candidates may have.
    samples : SearchSamples
        For statistics and measurements.
    latencies : LatencySource
        Where latencies come from.
    store : Cache
        Caches fits and measurements.
    options : RunOptions
        Where and how it runs.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open.
    score : Score, optional
        A user's figure of merit, of which the budget bounds the loss.
    kept : mapping of str to str
        Why layers are left out of the search, by name.
    settings : SearchSettings
        How long it measures, how far it looks, and when it stops.
    progress : callable
        Called with a sentence, the number of steps done, and their total.
    seconds : StepSeconds
        Where its time goes.
    """

    original: onnx.ModelProto
    normalised: onnx.ModelProto
    layers: Sequence[Layer]
    budget: Budget
    forms: Sequence[Form]
    samples: SearchSamples
    latencies: LatencySource
    store: Cache
    options: RunOptions = RunOptions()
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    score: Score | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    settings: SearchSettings = SETTINGS
    progress: Progress = silent
    seconds: StepSeconds = field(default_factory=StepSeconds)

    def assemble(self, chosen: Chosen) -> onnx.ModelProto:
        """Return the model with the layers of some candidates replaced."""
        return self._replaced(self.normalised, chosen)

    def file_bytes(self, chosen: Chosen) -> int:
        """Return the size of the file with some layers replaced, the others as they are."""
        prepared, _ = normalised(self.original, chosen.keys())
        return serialised_size(self._replaced(prepared, chosen))

    def feeds(self) -> dict[str, NDArray[Any]]:
        """Return random inputs of the size that is timed."""
        drawn = DataOptions(input_shapes=self.input_shapes, seed=self.options.seed)
        return make_feeds(self.original, self.latencies.batch, drawn)

    def _replaced(self, model: onnx.ModelProto, chosen: Chosen) -> onnx.ModelProto:
        values: dict[str, Replacement] = {name: c.replacement for name, c in chosen.items()}
        return replace_layers(model, values, forms=self.forms, input_shapes=self.input_shapes)[0]
