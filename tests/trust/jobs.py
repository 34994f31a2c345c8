"""What is tried on one model, in a process of its own."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import onnx
from verdicts import command, compressed, fault, lossless_plan, reason

OPEN_SIZE = 8  # of an axis that a model leaves open


class Job(NamedTuple):
    """A model to try.

    Attributes
    ----------
    name : str
        Where it comes from.
    data : bytes
        The serialised model.
    seed : int
        Of the choice of schemes and of the inputs.
    options : tuple of str
        Further words of `compress`.
    plan : dict of str to str, optional
        Layer name -> scheme; full ranks of random schemes if not given.
    """

    name: str
    data: bytes
    seed: int = 0
    options: tuple[str, ...] = ()
    plan: dict[str, str] | None = None


def compress_model(job: Job) -> str:
    """Compress a model without loss and return the outcome in one line, as of `compressed`."""
    warnings.simplefilter("ignore")
    plan = job.plan if job.plan is not None else lossless_plan(job.data, job.seed)
    if isinstance(plan, str):
        return plan
    shapes, sizes = _open_sizes(job.data)
    words = [word for shape in shapes for word in ("--input-shape", shape)]
    options = (*job.options, *words, "--seed", str(job.seed))
    return compressed(job.data, plan, *options, seed=job.seed, sizes=sizes)


def compress_twice(job: Job) -> str:
    """Compress a model and then the result, and return the outcome of the second time."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "new.onnx"
        source.write_bytes(job.data)
        first = command("compress", source, "-o", target, "--keep-anyway", *job.options)
        if wrong := fault(first):
            return wrong
        if not target.exists():
            return f"refused: {reason(first)}"
        return compress_model(job._replace(data=target.read_bytes()))


def read_model(job: Job) -> str:
    """List, cost and verify a model that may be damaged, then compress it.

    Returns
    -------
    str
        As of `compressed`; ``"refused: ..."`` where every command refuses it.
    """
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(job.data)
        ran = command("inspect", source)
        commands = [
            ran,
            command("cost", source, "--layer", "*=svd:R=50%"),
            command("verify", source, source, "--limit", "2"),
        ]
        for each in commands:
            if wrong := fault(each):
                return wrong
        if [p.name for p in Path(folder).iterdir()] != ["model.onnx"]:
            return "half-written: beside the model"
        if ran.code == 2:
            return f"refused: {reason(ran)}"
    return compress_model(job)


def _open_sizes(data: bytes) -> tuple[list[str], dict[str, int]]:
    """Return a shape for each input that leaves sizes open, as options, and these by name."""
    try:
        graph = onnx.ModelProto.FromString(data).graph
    except Exception:  # of a mutant: then the commands say so
        return [], {}
    stored = {tensor.name for tensor in graph.initializer}
    shapes, sizes = [], {}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in stored or all(_is_fixed(d) for d in dims):
            continue
        for place, dim in enumerate(dims):
            if dim.dim_param:
                sizes.setdefault(dim.dim_param, 2 if place == 0 else OPEN_SIZE)
        shape = [
            d.dim_value if _is_fixed(d) else sizes.get(d.dim_param, 2 if i == 0 else OPEN_SIZE)
            for i, d in enumerate(dims)
        ]
        shapes.append(f"{value.name}={','.join(map(str, shape))}")
    return shapes, sizes


def _is_fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value >= 0
