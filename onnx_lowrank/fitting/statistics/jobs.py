"""What is to be taken from the data, and in how many passes it fits into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from onnx_lowrank.cache import key_of
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.data.dataset import batched_inputs
from onnx_lowrank.errors import DataError, PlanError, suggest
from onnx_lowrank.graph.layers import attribute, find_layers
from onnx_lowrank.metrics.accumulator import MomentAccumulator


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How much of the data the statistics are taken from.

    Attributes
    ----------
    positions : int
        Most output positions of an image that are looked at.
    seed : int
        Seed of the choice of positions.
    memory_limit : int
        Bytes for moments, patches and activations, besides what the model takes to run. Layers
        that do not fit together are taken in several passes, with the same numbers.
    layer_limit : int
        Bytes for the moments of one layer. The numbers depend on it, and must not depend on the
        machine: it is one constant for all of them.

    Raises
    ------
    DataError
        The number of positions is below 1.
    """

    positions: int = 512
    seed: int = 0
    memory_limit: int = 4 << 30
    layer_limit: int = 1 << 30  # patches of up to 11585 entries

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise DataError(f"the number of positions is {self.positions}; give 1 or more")


SAMPLING = Sampling()


@dataclass(frozen=True)
class Survey:
    """What a first look at the data tells.

    Attributes
    ----------
    digest : str
        Key of all that is fed to the model.
    images : int
        Number of images.
    shapes : dict of str to tuple of int
        The largest size of every axis of every input.
    samples : frozenset of str
        Key of each image on its own, whatever batch it is in.
    labels : str
        Key of the labels; that of nothing where there are none.
    """

    digest: str
    images: int
    shapes: dict[str, tuple[int, ...]]
    samples: frozenset[str]
    labels: str

    @classmethod
    def of(cls, dataset: Dataset) -> Survey:
        """Read the data once; raise what the data set raises."""
        digest, labels = key_of(), key_of()
        images = 0
        shapes: dict[str, tuple[int, ...]] = {}
        samples: set[str] = set()
        batched = [name for name, carries in batched_inputs(dataset.inputs).items() if carries]
        for batch in dataset:
            images += batch.samples
            samples.update(_sample_keys(batch, sorted(batched)))
            if batch.labels is not None:
                labels = key_of(labels, batch.labels.tobytes())
            digest = key_of(digest, batch.samples)
            for name, value in sorted(batch.feeds.items()):
                digest = key_of(digest, name, value.dtype, value.shape, value.tobytes())
                shapes[name] = tuple(map(max, shapes.get(name, value.shape), value.shape))
        return cls(digest, images, shapes, frozenset(samples), labels)


def _sample_keys(batch: Batch, names: Sequence[str]) -> Iterator[str]:
    for index in range(batch.samples):
        values = ((name, batch.feeds[name][index]) for name in names)
        yield key_of(*(part for name, x in values for part in (name, x.shape, x.tobytes())))


@dataclass(frozen=True)
class Job:
    """Moments to be taken: of one tensor under one geometry, which several layers may share."""

    tensor: str
    conv: ConvSpec

    @property
    def key(self) -> bytes:
        """What tells this job from the others of a model; sizes are a matter of the data."""
        return repr((self.tensor, replace(self.conv, input_size=None, output_size=None))).encode()

    @property
    def length(self) -> int:
        """Length K of a group's patch."""
        return self.conv.in_channels // self.conv.group * self.conv.taps


def find_jobs(
    model: onnx.ModelProto, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Job]:
    """Return the job of every layer, given the shapes of the model's inputs.

    Raises
    ------
    PlanError
        A layer is unknown, or cannot be read.
    """
    layers = {layer.name: layer for layer in find_layers(model, input_shapes=shapes)}
    jobs = {}
    for name in names:
        if name not in layers:
            raise PlanError(f"no layer is called '{name}'{suggest(name, layers)}")
        layer = layers[name]
        transposed = layer.op == "Gemm" and attribute(layer.node, "transA", 0)
        if layer.spec is None or layer.reason is not None or transposed:
            reason = layer.reason or "its shape cannot be read"
            if transposed:
                reason = "its samples are columns (transA); normalise the model first"
            raise PlanError(f"layer '{name}' cannot be calibrated: {reason}; leave it out")
        # Patches depend on neither outputs nor bias: layers that differ in these alone share them.
        conv = replace(layer.spec, out_channels=layer.spec.group, bias=False)
        jobs[name] = Job(layer.node.input[0], conv)
    return jobs


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How much is kept of each job, and how jobs are divided into passes over the data.

    The moments of a layer are matrices of the length of its patches. Those of a layer without
    groups that would be larger than the limit for a layer are kept as the samples themselves, of
    fewer positions of each image, and in the end of fewer images, so that they are within it.

    Attributes
    ----------
    images, batch : int
        Number of images, and of those that run at once.
    sampling : Sampling
        How many of their positions are looked at, and the limits of memory.
    """

    images: int
    batch: int
    sampling: Sampling

    def group(self, jobs: Iterable[Job]) -> list[list[Job]]:
        """Divide jobs, in their order, into passes within the limit of memory.

        A job that takes more has a pass to itself.
        """
        limit = self.sampling.memory_limit
        groups: list[list[Job]] = []
        used = scratch = 0
        for job in jobs:
            size, extra = self.lasting(job), self.scratch(job)
            if not groups or used + size + max(scratch, extra) > limit:
                groups.append([])
                used = scratch = 0
            groups[-1].append(job)
            used += size
            scratch = max(scratch, extra)
        return groups

    def accumulators(self, jobs: Iterable[Job]) -> dict[Job, MomentAccumulator]:
        """Return an empty sum for every job."""
        return {
            job: MomentAccumulator(job.conv.group, job.length, dense=self.dense(job))
            for job in jobs
        }

    def dense(self, job: Job) -> bool:
        """Whether matrices are summed; the samples themselves are kept otherwise."""
        if job.conv.group == 1 and not job.conv.kernel and self._samples(job) < job.length:
            return False
        return self._matrices(job) <= self.sampling.layer_limit or job.conv.group > 1

    def check(self, job: Job) -> None:
        """Raise DataError where the moments of a job are too large in every form."""
        least = self._matrices(job) if self.dense(job) else 2 * 8 * job.length
        if least > self.sampling.layer_limit:
            limit = self.sampling.layer_limit
            raise DataError(
                f"the moments of its inputs take {least / 2**30:.2f} GiB, beyond the limit of "
                f"{limit / 2**30:.2f} GiB for a layer; keep the layer, or fit it without "
                "calibration data"
            )

    def most_positions(self, job: Job) -> int:
        """Return how many positions of an image are looked at, at most."""
        if self.dense(job):
            return self.sampling.positions
        return max(min(self._most_rows(job) // self.images, self.sampling.positions), 1)

    def takes(self, job: Job, image: int) -> bool:
        """Whether an image, by its number, is looked at: all, or as many as fit, evenly spread."""
        if self.dense(job) or (most := self._most_rows(job)) >= self.images:
            return True
        return image * most // self.images != (image - 1) * most // self.images

    def lasting(self, job: Job) -> int:
        """Return the bytes a job takes throughout a pass: its sums, and a batch of its tensor."""
        rows = job.length if self.dense(job) else min(self._samples(job), self._most_rows(job))
        # The sums, and besides the means of the images.
        rows += min(self.images, 2 * job.length)
        return 8 * rows * job.length * job.conv.group + self._activations(job)

    def scratch(self, job: Job) -> int:
        """Return the bytes a job takes while it adds an image: its patches and their product."""
        rows = min(self._rows(job), self.most_positions(job))
        patches = 2 * rows * job.length * job.conv.group
        return 8 * (patches + min(rows, job.length) ** 2)

    def _matrices(self, job: Job) -> int:
        return 8 * job.conv.group * job.length**2

    def _samples(self, job: Job) -> int:
        return self.images * self._rows(job)

    def _most_rows(self, job: Job) -> int:
        return max(self.sampling.layer_limit // (8 * job.length), 1)

    def _activations(self, job: Job) -> int:
        return 4 * self.batch * job.conv.in_channels * (job.conv.input_positions or 1)

    def _rows(self, job: Job) -> int:
        return min(self.sampling.positions, job.conv.output_positions or self.sampling.positions)
