"""Output errors on held-out images at a quarter of the multiply-adds: data against plain norm.

``python models/held_out.py`` sweeps the trained networks, once with all calibration images and once
with few, and prints a section in Markdown; a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import fetch
import numpy as np
import registry
import train
from PIL import Image

from onnx_lowrank.cache import default_folder
from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.files import write_text
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.pipelines.sweeping import PointResult, SweepData, SweepReport, sweep

FEW = 6
MANY = 300  # of the images of data sets that have more
FAST = (
    "bicluster-svd:G=2,H=2,macs=0.25",
    "tucker2:macs=0.25",
    "spatial:macs=0.25",
    "channel:macs=0.25",
    "svd:macs=0.25",
)
SCHEMES = (*FAST, "bicluster-outer:G=2,H=2,macs=0.25", "cp:macs=0.25")


@dataclass(frozen=True)
class Subject:
    """A network with its data, and the schemes tried on its layers."""

    model: Callable[[], Path]
    calibration: Callable[[], Any]
    held_out: Callable[[], Any]
    preprocess: str | None = None
    limit: int | None = None
    shapes: dict[str, tuple[int, ...]] | None = None
    schemes: tuple[str, ...] = SCHEMES


def photographs(part: str) -> Callable[[], Path]:
    return lambda: datasets.dataset("photographs") / part


def digits(part: slice) -> Callable[[], Any]:
    """Return digits as `mnist` takes them, in an order drawn once."""

    def read() -> list[dict[str, Any]]:
        with np.load(datasets.dataset("mnist5k") / "test.npz") as arrays:
            order = np.random.default_rng(0).permutation(len(arrays["images"]))[part]
            images = (arrays["images"][order] / 255 - 0.1307) / 0.3081
        return [{"image": image[None, None].astype(np.float32)} for image in images]

    return read


def tiles(part: str) -> Callable[[], Any]:
    """Return photographs and their parts at 32 x 32, as `cifar10` takes them, in a drawn order."""

    def read() -> list[dict[str, Any]]:
        found = []
        for path in sorted((datasets.dataset("photographs") / part).iterdir()):
            with Image.open(path) as image:
                whole = image.convert("RGB")
            for cuts in (1, 2, 4):
                width, height = whole.width / cuts, whole.height / cuts
                for row, column in itertools.product(range(cuts), repeat=2):
                    left, top = column * width, row * height
                    box = (left, top, left + width, top + height)
                    tile = whole.resize((32, 32), Image.Resampling.BILINEAR, box=box)
                    pixels = np.asarray(tile, np.float32).transpose(2, 0, 1)
                    found.append({"image": np.ascontiguousarray(pixels)[None]})
        return [found[i] for i in np.random.default_rng(0).permutation(len(found))]

    return read


def coloured(name: str, split: str) -> Callable[[], Path]:
    """Return the images of a split of coloured Fashion-MNIST, as the network takes them."""

    def write(folder: Path) -> None:
        train.write_data(name, split, folder / "images.npz")

    return lambda: registry.cached(f"datasets/{name}-{split}", write) / "images.npz"


SUBJECTS = {
    "mnist": Subject(
        lambda: fetch.network("mnist"), digits(slice(0, MANY)), digits(slice(MANY, 2 * MANY))
    ),
    "cifar10": Subject(
        lambda: fetch.network("cifar10"), tiles("calibration"), tiles("evaluation"), limit=MANY
    ),
    **{
        f"fashion-{name}": Subject(
            lambda name=name: train.trained(name),
            coloured(name, "calibration"),
            coloured(name, "test"),
            limit=MANY,
        )
        for name in train.RECIPES
    },
    "vgg16": Subject(
        lambda: fetch.network("vgg16"),
        photographs("calibration"),
        photographs("evaluation"),
        preprocess="unit",
        shapes={"input": (1, 240, 240, 3)},
        schemes=FAST,  # the other two take minutes for a layer this large
    ),
}


def sweep_subject(name: str, folder: Path, jobs: int) -> tuple[SweepReport, SweepReport]:
    """Sweep a network with all calibration images, then with few."""
    subject = SUBJECTS[name]
    path, held_out, calibration = subject.model(), subject.held_out(), subject.calibration()
    schemes = list(subject.schemes)
    for layer in find_layers(load_model(path)):
        # For layers on colours; its cost hardly depends on its rank, and is above a quarter there.
        if layer.spec is not None and layer.spec.in_channels <= 4:
            schemes.append(f"{layer.name}=mono:C=8")
    reports = []
    for count in (subject.limit, FEW):
        samples = SweepData(
            held_out=held_out,
            calibration=calibration,
            preprocess=subject.preprocess,
            limit=subject.limit,
            calibration_limit=count,
            input_shapes=subject.shapes,
            labels_from="none",
        )
        reports.append(
            sweep(
                path,
                folder / name,
                samples,
                schemes=schemes,
                metrics=("frobenius", "covariance"),
                jobs=jobs,
                progress=lambda step, done, total: print(
                    f"{name}: {step} ({done} of {total})", file=sys.stderr
                ),
            )
        )
    return reports[0], reports[1]


@dataclass(frozen=True)
class Row:
    """A layer under a scheme: the plain fit, and those with all and with few images."""

    plain: PointResult
    many: PointResult
    few: PointResult

    @property
    def ratio(self) -> float:
        """Error with all images over that of the plain fit."""
        return self.many.held_out_error / self.plain.held_out_error

    @property
    def few_ratio(self) -> float:
        """Error with few images over that of the plain fit."""
        return self.few.held_out_error / self.plain.held_out_error


def rows(many: SweepReport, few: SweepReport) -> list[Row]:
    """Return one row for each layer and scheme."""
    found: dict[tuple[str, str], dict[str, PointResult]] = defaultdict(dict)
    for key, report in (("many", many), ("few", few)):
        for point in report.points:
            name = "plain" if point.metric == "frobenius" else key
            found[point.layer, point.scheme][name] = point
    return [Row(**points) for points in found.values()]


def section(name: str, many: SweepReport, few: SweepReport) -> Iterator[str]:
    """Yield the lines of a network's tables."""
    table = rows(many, few)
    yield f"### {name}"
    yield ""
    yield (
        f"{many.points[-1].calibration_images} and {FEW} calibration images, "
        f"{many.held_out_images} others held out. Ratio: error of the covariance fit over that of "
        "the Frobenius fit."
    )
    yield ""
    yield f"| scheme | layers | median ratio | worst | median, {FEW} images | worst |"
    yield "|---|---|---|---|---|---|"
    for scheme in (*dict.fromkeys(row.plain.scheme_name for row in table), None):
        chosen = [row for row in table if scheme in (None, row.plain.scheme_name)]
        ratios, few_ratios = [r.ratio for r in chosen], [r.few_ratio for r in chosen]
        figures = (
            statistics.median(ratios),
            max(ratios),
            statistics.median(few_ratios),
            max(few_ratios),
        )
        cells = " | ".join(f"{value:.3f}" for value in figures)
        yield f"| {scheme or 'all'} | {len(chosen)} | {cells} |"
    yield ""
    yield "| layer | scheme | MACs | Frobenius, % | covariance, % | ratio | few, % | ratio |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in table:
        reduction = row.plain.mac_reduction or row.plain.param_reduction
        yield (
            f"| {row.plain.layer} | `{row.plain.scheme}` | {reduction:.2f} "
            f"| {100 * row.plain.held_out_error:.2f} | {100 * row.many.held_out_error:.2f} "
            f"| {row.ratio:.3f} | {100 * row.few.held_out_error:.2f} | {row.few_ratio:.3f} |"
        )
    yield ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(SUBJECTS), help=", ".join(SUBJECTS))
    parser.add_argument("--folder", type=Path, default=default_folder() / "held_out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="write the section there too")
    chosen = parser.parse_args(argv)
    unknown = set(chosen.networks) - set(SUBJECTS)
    if unknown:
        parser.error(f"no network is called {', '.join(sorted(unknown))}")
    lines = [
        "## Output errors on held-out images at a quarter of the multiply-adds",
        "",
        "Relative error of each layer's output, the layer alone replaced, on images that the fits "
        "did not see. MACs: times fewer (weights, where the size of the input is open).",
        "",
    ]
    for name in chosen.networks:
        lines += section(name, *sweep_subject(name, chosen.folder, chosen.jobs))
    text = "\n".join(lines)
    print(text)
    if chosen.output is not None:
        write_text(chosen.output, text)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except OnnxLowRankError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
