"""Statistics of one layer after another, of what the network compressed so far feeds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.fitting.statistics.collect import Sums, add_batch, by_image, rows_of, sized
from onnx_lowrank.fitting.statistics.jobs import SAMPLING, Job, Passes, Sampling, find_jobs
from onnx_lowrank.graph.extract import extract_region, find_region
from onnx_lowrank.metrics.accumulator import MomentAccumulator
from onnx_lowrank.metrics.moments import LayerStatistics
from onnx_lowrank.runtime import NO_SPINNING, Session, open_session
from onnx_lowrank.runtime.engines import CPU, Engine

Tensor = NDArray[Any]
S = TypeVar("S", bound=Sums)


@dataclass(frozen=True)
class _Fed:
    """A batch of the data: its inputs are in files, as decoding them takes as long as a layer."""

    samples: int
    rows: int
    files: dict[str, Path]


@dataclass
class _Side:
    """One of the two networks: what has been computed of it so far, a file for each batch."""

    model: onnx.ModelProto
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)


class StepwiseStatistics:
    """Statistics for asymmetric fits, without running the network from its start each time.

    The inputs of layers are kept in files: those of the next layer follow from them by the part of
    the network in between. Layers are asked for in graph order, each with the network in which
    those before it are replaced. A context manager: the files go when it ends.

    Parameters
    ----------
    model : onnx.ModelProto
        The original model.
    dataset : Dataset
        Samples; read once.
    layers : sequence of str
        Names of all layers that will be asked for, in graph order.
    sampling : Sampling
        How many positions of an image are looked at, and in how much memory.
    engine : Engine
        On whose device, and on how many threads, onnxruntime runs the networks.

    Raises
    ------
    PlanError
        A layer is unknown, or cannot be read.
    DataError
        What the data set raises.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        dataset: Dataset,
        layers: Sequence[str],
        *,
        sampling: Sampling = SAMPLING,
        engine: Engine = CPU,
    ) -> None:
        self._engine = engine
        self._waiting = list(layers)
        self._original = _Side(model)
        self._compressed: _Side | None = None
        self._folder = TemporaryDirectory(prefix="onnx_lowrank-")
        self._count = 0
        shapes: dict[str, tuple[int, ...]] = {}
        self._batches: list[_Fed] = []
        for batch in dataset:
            files = {name: self._kept(value) for name, value in batch.feeds.items()}
            self._batches.append(_Fed(batch.samples, rows_of(batch, dataset), files))
            for name, value in batch.feeds.items():
                shapes[name] = tuple(map(max, shapes.get(name, value.shape), value.shape))
        images = sum(batch.samples for batch in self._batches)
        self._passes = Passes(images=images, batch=dataset.batch, sampling=sampling)
        self._jobs = find_jobs(model, layers, shapes)

    def __enter__(self) -> StepwiseStatistics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def next(
        self, name: str, weight: NDArray[np.float64], compressed: onnx.ModelProto | None
    ) -> LayerStatistics:
        """Return the statistics of the next layer.

        Parameters
        ----------
        name : str
            The layer: the first of `layers` that was not asked for yet.
        weight : ndarray, shape (F, C / group, *kernel), float64
            Its weight.
        compressed : onnx.ModelProto or None
            The model with the layers before it replaced, its tensors' names kept; None as long as
            no layer is.

        Raises
        ------
        ModelError, ProviderError
            A model does not run, or the compressed one lacks a tensor.
        DataError
            NaN or Inf in an activation, one without an axis of images, or a layer too large.
        """

        def moments(job: Job) -> MomentAccumulator:
            return MomentAccumulator(
                job.conv.group,
                job.length,
                dense=self._passes.dense(job),
                weight=None if compressed is None else weight,
            )

        return self.fill(name, compressed, moments).result()

    def fill(self, name: str, compressed: onnx.ModelProto | None, make: Callable[[Job], S]) -> S:
        """Return sums over the patches of the next layer.

        Parameters
        ----------
        name, compressed
            As of `next`, which raises the same.
        make : callable
            Makes the empty sums of a job whose sizes are known.
        """
        assert name == self._waiting[0], f"{name} is asked for before {self._waiting[0]}"
        self._waiting.pop(0)
        job = self._jobs[name]
        if compressed is not None:
            if self._compressed is None:
                self._compressed = _Side(compressed, dict(self._original.files))
            self._compressed.model = compressed
        sides = [s for s in (self._original, self._compressed) if s is not None]
        for side in sides:
            self._advance(side, job.tensor)
        found = self._filled(job, sides, make)
        self._forget(sides)
        return found

    def skip(self, name: str) -> None:
        """Pass over the next layer."""
        assert name == self._waiting[0], f"{name} is skipped before {self._waiting[0]}"
        self._waiting.pop(0)

    def _advance(self, side: _Side, tensor: str) -> None:
        """Compute a tensor of a side for all batches, where it is not known yet."""
        region = find_region(side.model, tensor, self._fed | side.files.keys())
        if not region.nodes:
            return
        files = []
        session: Session | None = None
        for number, batch in enumerate(self._batches):
            values = {
                name: _read(side.files[name][number] if name in side.files else batch.files[name])
                for name in region.starts
            }
            if session is None:
                cut = extract_region(side.model, region, values)
                session = open_session(
                    cut,
                    provider=self._engine.device,
                    threads=self._engine.threads,
                    options=NO_SPINNING,
                )
            files.append(self._kept(session.run(values, [tensor])[tensor]))
        side.files[tensor] = tuple(files)

    def _filled(self, job: Job, sides: Sequence[_Side], make: Callable[[Job], S]) -> S:
        sums = None
        done = 0
        for number, batch in enumerate(self._batches):
            images = []
            for side in sides:
                known = side.files.get(job.tensor)
                if known is None and job.tensor not in batch.files:
                    raise DataError(f"its input '{job.tensor}' is a constant; keep this layer")
                value = _read(batch.files[job.tensor] if known is None else known[number])
                images.append(by_image(job.tensor, value, batch.rows))
            if sums is None:
                job = sized(job, images[0].shape)
                self._passes.check(job)
                sums = make(job)
            add_batch(sums, job, images, self._passes, samples=batch.samples, first=done)
            done += batch.samples
        assert sums is not None, "a data set has a batch"
        return sums

    def _forget(self, sides: Sequence[_Side]) -> None:
        """Delete the files that no later layer follows from."""
        kept = {path for batch in self._batches for path in batch.files.values()}
        for side in sides:
            known = self._fed | side.files.keys()
            ends = [self._jobs[name].tensor for name in self._waiting]
            needed = {start for end in ends for start in find_region(side.model, end, known).starts}
            side.files = {name: files for name, files in side.files.items() if name in needed}
            kept |= {path for files in side.files.values() for path in files}
        for path in Path(self._folder.name).iterdir():
            if path not in kept:
                path.unlink()

    @property
    def _fed(self) -> frozenset[str]:
        """The names of the inputs."""
        return frozenset(name for batch in self._batches for name in batch.files)

    def _kept(self, value: Tensor) -> Path:
        """Write a tensor into a file."""
        path = Path(self._folder.name) / f"{self._count}.npy"
        self._count += 1
        np.save(path, value, allow_pickle=False)
        return path


def _read(path: Path) -> Tensor:
    value: Tensor = np.load(path, allow_pickle=False)
    return value
