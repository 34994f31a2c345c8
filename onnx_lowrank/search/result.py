"""What a search found, and what it tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.planning.plan import Plan
from onnx_lowrank.search.candidate import Chosen
from onnx_lowrank.search.prediction import Predictor
from onnx_lowrank.search.quality import Quality


@dataclass(frozen=True)
class LayerChoice:
    """What was chosen for one layer, and what its figures were.

    Attributes
    ----------
    name : str
        The layer.
    scheme : str
        Specification of the scheme and its form.
    error : float
        Relative error of its output over the calibration samples.
    ratio, low, high : float
        Latency over the layer's own, and its interval.
    """

    name: str
    scheme: str
    error: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Explored:
    """A whole model that was measured on the way.

    Attributes
    ----------
    predicted_ratio : float
        Latency over the original's, as the sum of the layers says.
    predicted_noise : float
        Noise of the outputs, as the sum of the layers says.
    quality : Quality
        What was measured.
    passed : bool
        Whether it was within the bounds on quality.
    """

    predicted_ratio: float
    predicted_noise: float
    quality: Quality
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "predicted_ratio": self.predicted_ratio,
            "predicted_noise": self.predicted_noise,
            **self.quality.to_dict(),
            "passed": self.passed,
        }


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The plan of a search, its candidates, and how they came about.

    Attributes
    ----------
    plan : Plan
        A decision for every layer.
    chosen : mapping of str to Candidate
        What the layers that are replaced become, by name.
    layers : tuple of LayerChoice
        Of those layers.
    explored : tuple of Explored
        The models that were measured, in that order.
    quality : Quality
        Of the chosen one, on the samples of the search.
    latency : Timed
        Of the chosen one, beside the original.
    predicted_ratio : float
        Its latency over the original's as the sum of the layers said.
    failures : tuple of str
        Which bounds the nearest plan misses; empty where all hold on the samples of the search.
    predictor : Predictor or None
        Predicts the loss on other samples from those; None where that cannot be done.
    """

    plan: Plan
    chosen: Chosen
    layers: tuple[LayerChoice, ...]
    explored: tuple[Explored, ...]
    quality: Quality
    latency: Timed
    predicted_ratio: float
    failures: tuple[str, ...]
    predictor: Predictor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "layers": [vars(layer) for layer in self.layers],
            "explored": [each.to_dict() for each in self.explored],
            "quality": self.quality.to_dict(),
            "latency": vars(self.latency),
            "predicted_ratio": self.predicted_ratio,
            "failures": list(self.failures),
        }
