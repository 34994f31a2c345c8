"""What an estimate says, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """A model that is predicted.

    Attributes
    ----------
    sqnr_db : float
        Signal-to-error ratio of its scores (centred logits of a classifier, else its outputs).
    ratio, low, high : float
        Its time over the original's, and that less and more the standard deviation of such
        predictions.
    layers : int
        Layers that are replaced.
    """

    sqnr_db: float
    ratio: float
    low: float
    high: float
    layers: int


@dataclass(frozen=True)
class LayerEstimate:
    """What is predicted of one layer.

    Attributes
    ----------
    name : str
        The layer.
    share : float
        Of the model's time.
    time_at_half : float
        The least time of a candidate with about half of its multiply-adds, over its own.
    """

    name: str
    share: float
    time_at_half: float


@dataclass(frozen=True)
class Estimate:
    """What low rank, and 8-bit integers, may give; nothing of it was fitted or measured whole.

    Attributes
    ----------
    seconds : float
        Of the original, measured.
    frontier : tuple of Point
        The fastest by low rank at several losses; those where nothing pays are left out.
    int8 : Point or None
        All Convs in 8-bit integers by onnxruntime; None where their time is unknown.
    layers : tuple of LayerEstimate
        Those that a search would look at.
    spread : float
        Factor by which predicted times of single layers are off, as a standard deviation.
    samples : int
        Samples that were looked at.
    """

    seconds: float
    frontier: tuple[Point, ...]
    int8: Point | None
    layers: tuple[LayerEstimate, ...]
    spread: float
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "seconds": self.seconds,
            "frontier": [vars(point) for point in self.frontier],
            "int8": None if self.int8 is None else vars(self.int8),
            "layers": [vars(layer) for layer in self.layers],
            "spread": self.spread,
            "samples": self.samples,
        }
