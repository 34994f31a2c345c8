"""What training gives back on the network `zf`: the runs behind two sections of RESULTS.md."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import seed_tables
import torch
import train
from numpy.typing import NDArray

import onnx_lowrank
from onnx_lowrank.data import open_dataset
from onnx_lowrank.measure.verification.classification import paired_interval
from onnx_lowrank.pipelines.cascade import cascade
from onnx_lowrank.pipelines.finetune import finetune
from onnx_lowrank.runtime import model_inputs, open_session
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.training.correct import correct

NETWORK = "zf"
SPLITS = ("train", "validation", "calibration", "test")
BATCH = 64
Hits = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How rows are trained.

    Attributes
    ----------
    samples : int
        Training images.
    epochs : int
        Passes over them, after each layer.
    statistics : int
        Images for the fits and corrections.
    """

    samples: int = 20_000
    epochs: int = 1
    statistics: int = 1_000


class Bench:
    """A network, its data, and how many test images each of its forms gets right.

    Parameters
    ----------
    network : path
        The original.
    data : mapping of str to path
        One .npz for each of `SPLITS`, with labels.
    """

    def __init__(self, network: Path, data: Mapping[str, Path]) -> None:
        self.network, self.data = network, data
        self._original = self._hits(onnx.load(network))

    @property
    def accuracy(self) -> float:
        """The original's, in per cent."""
        return 100 * float(self._original.mean())

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self._original)

    def drop(self, model: onnx.ModelProto) -> dict[str, float]:
        """Return the points of accuracy lost on the test images, with their 95 % interval."""
        old, new = self._original, self._hits(model)
        counts = (old & new, old & ~new, ~old & new, ~old & ~new)
        low, high = paired_interval(*(int(each.sum()) for each in counts))
        points = float(old.mean() - new.mean())
        return {"points": 100 * points, "low": 100 * low, "high": 100 * high}

    def _hits(self, model: onnx.ModelProto) -> Hits:
        session = open_session(model, threads=1)
        hits = []
        for batch in open_dataset(self.data["test"], model_inputs(model), batch=BATCH):
            (scores,) = session.run(batch.feeds).values()
            if batch.labels is None:
                raise train.TrainingError(f"{self.data['test']} has no labels; write it anew")
            hits.append(scores[: batch.samples].argmax(axis=1) == batch.labels)
        return np.concatenate(hits)

    def fit(self, plan: Sequence[str], settings: Settings) -> tuple[onnx.ModelProto, Any]:
        """Return the model of a plan, fitted by the covariance of the data, and its cost."""
        fitted = onnx_lowrank.compress(
            self.network,
            plan=list(plan),
            verification=False,
            calibration=self.data["calibration"],
            calibration_limit=settings.statistics,
            cache_dir=self.data["calibration"].parent / "statistics",
        )
        return fitted.model, fitted.report.cost

    def corrected(self, model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
        """Return a copy with means and deviations as the original's."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        original = onnx.load(self.network)
        samples = open_dataset(
            self.data["calibration"],
            model_inputs(original),
            limit=settings.statistics,
            batch=BATCH,
        )
        correct(original, copy, samples)
        return copy


@contextmanager
def coloured() -> Iterator[Bench]:
    """Give the trained network and its images, in a folder of their own."""
    torch.set_num_threads(train.THREADS)
    network = train.trained(NETWORK)
    with tempfile.TemporaryDirectory() as folder:
        data = {
            split: train.write_data(NETWORK, split, Path(folder) / f"{split}.npz")
            for split in SPLITS
        }
        yield Bench(network, data)


def tune_layers(
    bench: Bench,
    rows: Sequence[seed_tables.Row] = seed_tables.ROWS,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Approximate each row's layer alone, and train the layers above it by the labels."""
    settings = settings or Settings()
    found = []
    for row in rows:
        start = time.perf_counter()
        fitted, cost = bench.fit([row.spec], settings)
        (layer,) = (each for each in cost.layers if each.name == row.layer)
        tuned = finetune(
            bench.network,
            fitted,
            data=bench.data["train"],
            val=bench.data["validation"],
            limit=settings.samples,
            part="above",
            loss="labels",
            epochs=settings.epochs,
            batch=BATCH,
        )
        each = {
            "layer": row.layer,
            "scheme": row.scheme,
            "mac_reduction": layer.mac_reduction,
            "param_reduction": layer.param_reduction,
            "fitted": bench.drop(fitted),
            "tuned": bench.drop(tuned.model),
            "seconds": time.perf_counter() - start,
        }
        _tell(row.spec, each)
        found.append(each)
    return _document(bench, settings, found)


def run_cascades(
    bench: Bench,
    rows: Sequence[seed_tables.Cascade] = seed_tables.CASCADES,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Approximate the layers of each row: at once and untrained, and as a cascade."""
    settings = settings or Settings()
    found = []
    for row in rows:
        start = time.perf_counter()
        fitted, cost = bench.fit(row.plan, settings)
        trained = None
        if row.trained:
            trained = cascade(
                bench.network,
                plan=list(row.plan),
                data=bench.data["train"],
                val=bench.data["validation"],
                statistics_limit=settings.statistics,
                limit=settings.samples,
                epochs=settings.epochs,
                batch=BATCH,
            )
        each = {
            "plan": list(row.plan),
            "mac_reduction": cost.total.mac_reduction,
            "param_reduction": cost.total.param_reduction,
            "fitted": bench.drop(fitted),
            "corrected": bench.drop(bench.corrected(fitted, settings)),
            "trained": None if trained is None else bench.drop(trained.model),
            "seconds": time.perf_counter() - start,
        }
        _tell(" ".join(row.plan), each)
        found.append(each)
    return _document(bench, settings, found)


def _document(bench: Bench, settings: Settings, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "network": bench.network.name,
        "accuracy": bench.accuracy,
        "test_images": bench.images,
        "settings": asdict(settings),
        "rows": rows,
        "machine": describe_machine(),
        "provider": "cpu",
    }


def _tell(name: str, row: Mapping[str, Any]) -> None:
    drops = {key: f"{value['points']:.2f}" for key, value in row.items() if isinstance(value, dict)}
    print(f"{name}: {drops}, {row['seconds']:.0f} s", file=sys.stderr, flush=True)
