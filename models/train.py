"""Trains the small networks on which accuracy is measured, and writes their data.

``python models/train.py zf`` (or ``vgg``) prints the path of the cached ONNX file, trained first if
it is missing; with ``-o PATH`` it copies the file there and prints that path.
``python models/train.py data zf --split test -o PATH`` writes the data of a split for a network.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import colouring
import convert
import numpy as np
import numpy.typing as npt
import registry
from colouring import SPLITS, Images

from onnx_lowrank.errors import OnnxLowRankError

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

BATCH = 64
# Of onnxruntime's scores, which are of the order of 10, from torch's: float32 sums over thousands
# of terms, in another order, through a few layers.
TOLERANCE = 1e-4
# Results depend on how sums are split among threads; both networks can be trained at once.
THREADS = 1


class TrainingError(OnnxLowRankError):
    """A network cannot be trained, or its ONNX file does not compute what torch does."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network of `networks.NETWORKS` is trained.

    Attributes
    ----------
    side : int
        Height and width of its input.
    epochs : int
        Passes over the 50,000 training images.
    rate : float
        Peak learning rate of AdamW.
    """

    side: int
    epochs: int
    rate: float


RECIPES = {
    "zf": Recipe(side=56, epochs=5, rate=1e-3),
    "vgg": Recipe(side=28, epochs=4, rate=2e-3),
}


def fit(
    network: nn.Sequential,
    images: Images,
    labels: Labels,
    *,
    epochs: int,
    rate: float,
    rng: np.random.Generator,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train a network in place: AdamW, cross-entropy, one cycle of the learning rate.

    Parameters
    ----------
    network : torch.nn.Sequential
        Left in evaluation mode.
    images, labels : numpy.ndarray
        uint8 N x 3 x H x W and int64 N.
    epochs, rate
        As in `Recipe`.
    rng : numpy.random.Generator
        Orders the images.
    after_epoch : callable
        Called in evaluation mode.
    """
    import torch

    steps = -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps)
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        network.train()
        for batch in np.array_split(rng.permutation(len(images)), steps):
            optimiser.zero_grad()
            inputs = colouring.vary(colouring.normalise(images[batch]), rng)
            # The layout in which pools and Convs are faster on CPUs.
            tensor = torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last)
            scores = network(tensor)
            loss(scores, torch.from_numpy(labels[batch])).backward()
            optimiser.step()
            schedule.step()
        network.eval()
        after_epoch()


def score(network: Callable[[Array], Array], images: Images) -> Array:
    """Return the scores of all images, float32 N x 10, computed 500 images at a time."""
    parts = np.split(images, range(500, len(images), 500))
    return np.concatenate([network(colouring.normalise(part)) for part in parts])


def make(name: str, folder: Path, *, epochs: int, seed: int) -> None:
    """Train a network; write ``NAME.onnx`` and its record ``NAME.json`` into a new folder.

    The record holds the SHA-256 of the ONNX file, its accuracy in onnxruntime on the validation and
    test images (shares), how it was trained and the seconds that took.

    Raises
    ------
    TrainingError
        torch is not installed, or the scores of the ONNX file are not torch's.
    FetchError
        The images cannot be obtained.
    """
    try:
        import torch
    except ImportError as error:
        raise TrainingError(f"{name}: torch is not installed; `pip install torch`") from error
    import networks
    import onnx
    import onnxruntime as ort

    side = RECIPES[name].side
    images, labels = colouring.load("train", side=side)
    held_out = {split: colouring.load(split, side=side) for split in ("validation", "test")}

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    network = networks.NETWORKS[name]()

    def in_torch(batch: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)))

    def report() -> None:
        found = score(in_torch, held_out["validation"][0])
        share = accuracy(found, held_out["validation"][1])
        seconds = time.monotonic() - start
        print(f"{name}: validation {share:.2%} after {seconds:.0f} s", file=sys.stderr, flush=True)

    start = time.monotonic()
    rng = np.random.default_rng(seed)
    rate = RECIPES[name].rate
    fit(network, images, labels, epochs=epochs, rate=rate, rng=rng, after_epoch=report)
    seconds = time.monotonic() - start

    model = networks.export(network, name, side=side).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])

    def in_onnxruntime(batch: Array) -> Array:
        return np.asarray(session.run([convert.OUTPUT], {convert.INPUT: batch})[0])

    found = {split: score(in_onnxruntime, held_out[split][0]) for split in held_out}
    expected = score(in_torch, held_out["validation"][0])
    difference = float(np.abs(found["validation"] - expected).max())
    if not difference < TOLERANCE:
        raise TrainingError(
            f"{name}: scores in onnxruntime are {difference:.1e} off torch's, more than "
            f"{TOLERANCE:.0e}; check the case of each of its layers in networks.export"
        )
    folder.mkdir()
    (folder / f"{name}.onnx").write_bytes(model)
    record = {
        "network": name,
        "sha256": registry.digest(folder / f"{name}.onnx"),
        "accuracy": {split: accuracy(found[split], held_out[split][1]) for split in found},
        "difference_from_torch": difference,
        "seed": seed,
        "epochs": epochs,
        "rate": rate,
        "batch": BATCH,
        "seconds": round(seconds, 1),
        "threads": THREADS,
        "versions": {module.__name__: str(module.__version__) for module in (torch, np, onnx, ort)},
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def accuracy(scores: Array, labels: Labels) -> float:
    """Return the share of images whose highest score is at their label."""
    return float(np.mean(scores.argmax(axis=1) == labels))


def trained(name: str, *, epochs: int | None = None, seed: int = 0) -> Path:
    """Return the path of a cached ONNX file, trained if it is missing; its record is beside it.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    epochs : int, optional
        The recipe's by default.
    seed : int
        Of the weights and of the order of the images; not of the data, which stay the same.

    Raises
    ------
    TrainingError, FetchError
        As of `make`.
    """
    passes = epochs or RECIPES[name].epochs
    key = _key(name, passes, seed)
    folder = registry.cached(
        f"networks/{name}-{key}", lambda path: make(name, path, epochs=passes, seed=seed)
    )
    return folder / f"{name}.onnx"


def _key(name: str, epochs: int, seed: int) -> str:
    """Return a short key of all that a trained network depends on, but for versions."""
    recipe = f"{RECIPES[name]} {BATCH} {THREADS} {epochs} {seed}"
    files = (Path(__file__).with_name(file) for file in ("networks.py", "colouring.py"))
    sources = [file.read_text() for file in files]
    sources += [inspect.getsource(part) for part in (fit, convert.Chain)]
    text = "\n".join([recipe, *map(_code, sources)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _code(source: str) -> str:
    """Return Python code without comments and docstrings, whose changes change no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)


def copy_trained(path: Path, output: Path | None) -> Path:
    """Copy a trained network to `output`, its record beside it; without `output` return `path`."""
    if output is not None:
        registry.deliver(path.with_suffix(".json"), output.with_suffix(".json"))
    return registry.deliver(path, output)


def write_data(name: str, split: str, output: Path) -> Path:
    """Write a split as a network reads it and return the path.

    Arrays: ``image``, float32, N x 3 x side x side, normalised (`colouring.normalise`); ``labels``,
    int64, N. They are not compressed, so that single rows can be read.

    Raises
    ------
    FetchError
        The images cannot be obtained, or `output` cannot be written.
    """
    images, labels = colouring.load(split, side=RECIPES[name].side)
    arrays = {convert.INPUT: colouring.normalise(images), "labels": labels}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".partial-") as scratch:
            partial = Path(scratch) / "data.npz"
            np.savez(partial, **arrays)  # type: ignore[arg-type]
            partial.replace(output)
    except OSError as error:
        raise registry.FetchError(
            f"{output}: cannot be written ({error}); choose another -o"
        ) from error
    return output


def _between(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number of the command line and refuses others."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {least} to {most}")
        return int(text)

    return read


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Train a network, or write its data.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in RECIPES:
        command = commands.add_parser(name, help=f"train {name}; print the path of its ONNX file")
        command.add_argument("-o", "--output", type=Path, help="copy the file, and its record")
        command.add_argument("--epochs", type=_between(1, 1000), metavar="N")
        command.add_argument("--seed", type=_between(0, 2**31 - 1), metavar="S", default=0)
    command = commands.add_parser("data", help="write the images and labels of a split as .npz")
    command.add_argument("network", choices=RECIPES)
    command.add_argument("--split", choices=SPLITS, required=True)
    command.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args(argv)

    def obtain() -> Path:
        if chosen.command == "data":
            return write_data(chosen.network, chosen.split, chosen.output)
        path = trained(chosen.command, epochs=chosen.epochs, seed=chosen.seed)
        return copy_trained(path, chosen.output)

    return registry.run(obtain, None)


if __name__ == "__main__":
    raise SystemExit(main())
