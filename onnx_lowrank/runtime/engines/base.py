"""What the package asks of an engine: where models are run and timed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.runtime.runner import Runner
from onnx_lowrank.runtime.session import Provider
from onnx_lowrank.runtime.tensor import TensorInfo
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    import onnx

    Model = onnx.ModelProto | str | os.PathLike[str]


class LoadedModel(Protocol):
    """A model that takes inputs of any size that it allows."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """In the model's order, without those that have an initializer."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """In the model's order."""
        ...

    @property
    def optional_inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs that have an initializer and that the engine lets a caller override."""
        ...

    @property
    def settings(self) -> Mapping[str, str]:
        """What reports say of the engine's settings, by its own names."""
        ...

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Run the model once and return the outputs named, or all, by name.

        Raises
        ------
        ModelError
            The engine cannot run the model on these inputs.
        """
        ...


class Engine(Protocol):
    """Where models are run for their outputs, and where they are timed."""

    @property
    def name(self) -> str:
        """What users call it, in lower case."""
        ...

    @property
    def device(self) -> Provider:
        """What it computes on.

        Statistics of the tensors inside a model are taken in onnxruntime on that device, whatever
        the engine: they are those of the same network.
        """
        ...

    @property
    def functions(self) -> bool:
        """Whether it runs model-local functions, which portable nodes are."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures must know, one sentence each."""
        ...

    @property
    def threads(self) -> int | None:
        """Threads of one run; None is the engine's own choice."""
        ...

    def with_threads(self, threads: int | None) -> Engine:
        """Return the same engine with another number of threads."""
        ...

    @property
    def version(self) -> str:
        """Version of the library that runs the models, which is imported for it."""
        ...

    @property
    def kernels(self) -> bool:
        """Whether the package's kernels are there for it, which make portable nodes fast."""
        ...

    @property
    def reorders(self) -> bool:
        """Whether it gives Convs a layout of its own, as `onnx_lowrank.runtime.layout` finds it."""
        ...

    @property
    def settings(self) -> str:
        """All that a latency depends on besides the model: threads, processor, versions, kernels.

        Latencies are kept under it: those of equal settings are taken as equal.
        """
        ...

    def require(self) -> None:
        """Raise ProviderError, with the cause and its remedy, unless models run here."""
        ...

    def load(self, model: Model) -> LoadedModel:
        """Load a model to compare its outputs; raise ModelError where that is not possible."""
        ...

    def runner(self, model: Model, feeds: Feeds) -> Runner:
        """Load a model to time it on one input; raise ModelError where that is not possible."""
        ...


def latency_settings(engine: Engine, packages: str, *more: object) -> str:
    """Return all that a latency depends on besides the model, as of `Engine.settings`.

    Parameters
    ----------
    engine : Engine
        Gives its name and threads.
    packages : str
        What the names of the packages begin with whose versions count.
    *more : object
        What else counts.
    """
    machine = describe_machine()
    parts = [engine.name, engine.threads, machine["cpu"], machine["cores"]]
    versions = sorted(v for v in machine["versions"].items() if v[0].startswith(packages))
    return " ".join(map(str, [*parts, *machine["instruction_sets"], *more, *versions]))
