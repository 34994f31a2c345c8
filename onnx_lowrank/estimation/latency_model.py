"""How long layers and candidates take on this machine, predicted from what they have to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.estimation.work import Work

MOVED, WEIGHTS, NODES = "bytes of tensors", "bytes of weights", "nodes"


@dataclass(frozen=True)
class Sample:
    """A model of one layer that was timed.

    Attributes
    ----------
    layer : str
        What it was made from: samples of one layer are left out together in `spread`.
    work : tuple of Work
        What its nodes do.
    seconds : float
        What it takes.
    """

    layer: str
    work: tuple[Work, ...]
    seconds: float


@dataclass(frozen=True)
class LatencyModel:
    """Seconds as a sum: of multiply-adds by kind of node, of bytes, and of nodes.

    Attributes
    ----------
    rates : mapping of str to float
        Seconds for a multiply-add of each kind, for a byte, and for a node.
    spread : float
        Factor by which layers that were not among the samples are off, as a standard deviation.
    """

    rates: Mapping[str, float]
    spread: float

    def seconds(self, work: Iterable[Work]) -> float:
        """Return what a layer of one image takes."""
        features = _features(work)
        return sum(self.rates.get(name, 0.0) * value for name, value in features.items())

    def knows(self, work: Iterable[Work]) -> bool:
        """Whether nodes of all these kinds were timed."""
        return all(each.kind in self.rates or not each.macs for each in work)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"rates": dict(self.rates), "spread": self.spread}

    @classmethod
    def from_dict(cls, data: Any) -> LatencyModel:
        """Read what `to_dict` gave."""
        rates = {str(name): float(rate) for name, rate in data["rates"].items()}
        return cls(rates, float(data["spread"]))


def fit_latencies(samples: Sequence[Sample]) -> LatencyModel:
    """Fit the rates to samples, by the squares of relative errors.

    Parameters
    ----------
    samples : sequence of Sample
        Of more than one layer.
    """
    layers = sorted({sample.layer for sample in samples})
    off = []
    for layer in layers:
        rates = _rates([sample for sample in samples if sample.layer != layer])
        model = LatencyModel(rates, 1.0)
        off += [
            np.log(max(model.seconds(sample.work), 1e-9) / sample.seconds)
            for sample in samples
            if sample.layer == layer and model.knows(sample.work)
        ]
    spread = float(np.exp(np.sqrt(np.mean(np.square(off))))) if off else np.inf
    return LatencyModel(_rates(samples), spread)


def _rates(samples: Sequence[Sample]) -> dict[str, float]:
    from scipy.optimize import nnls  # takes long to import, and reading a model needs none of it

    rows = [_features(sample.work) for sample in samples]
    names = sorted({name for row in rows for name in row})
    seconds = np.array([sample.seconds for sample in samples])
    table: NDArray[np.float64] = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    relative = table / seconds[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-300)
    found, _ = nnls(relative / scale, np.ones(len(samples)))
    return dict(zip(names, (found / scale).tolist(), strict=True))


def _features(work: Iterable[Work]) -> dict[str, float]:
    found = {WEIGHTS: 0.0, NODES: 0.0}
    for each in work:
        if each.macs:
            found[each.kind] = found.get(each.kind, 0.0) + each.macs
        moved = f"{MOVED}, {each.kind}"
        found[moved] = found.get(moved, 0.0) + each.moved
        found[WEIGHTS] += each.weights
        found[NODES] += 1.0
    return found
