"""What a sweep finds: one row for each point, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from onnx_lowrank.documents import measured
from onnx_lowrank.errors import DataError
from onnx_lowrank.pipelines.sweeping.grid import Skipped
from onnx_lowrank.runtime import Provider
from onnx_lowrank.text import spreadsheet_cell

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class PointResult:
    """One point of a sweep, measured.

    Attributes
    ----------
    layer, scheme, metric : str
        The layer's name, the scheme with its ranks, and the metric that was minimised.
    calibration_images : int or None
        Number of images behind the metric; None for one that takes no data.
    macs, macs_new : int or None
        Multiply-adds of one image before and after; None where sizes are unknown.
    params, params_new : int
        Weights before and after, without biases.
    fit_error : float
        Relative error ``|W - W~| / |W|`` in the metric.
    held_out_error : float
        Relative error of the layer's output on the held-out data,
        ``sqrt(E|W x + b - W~ x - b~|^2 / E|W x|^2)``.
    seconds : float
        Wall-clock time of the fit.
    samples : int or None
        Held-out samples that the whole network was run on, with only this layer replaced; None
        where it was not, as all that follows.
    top1_agreement : float or None
        Share of them with the same top-1 class; None too where the model is no classifier.
    accuracy_original, accuracy : float or None
        Share of right classes before and after; None too without labels.
    drop_points : float or None
        Points of accuracy lost.
    sqnr_db : float or None
        Least signal-to-noise ratio of the network's outputs.
    """

    layer: str
    scheme: str
    metric: str
    calibration_images: int | None
    macs: int | None
    macs_new: int | None
    params: int
    params_new: int
    fit_error: float
    held_out_error: float
    seconds: float
    samples: int | None = None
    top1_agreement: float | None = None
    accuracy_original: float | None = None
    accuracy: float | None = None
    drop_points: float | None = None
    sqnr_db: float | None = None

    @property
    def mac_reduction(self) -> float | None:
        """How many times fewer multiply-adds, or None where they are unknown."""
        return self.macs / self.macs_new if self.macs is not None and self.macs_new else None

    @property
    def param_reduction(self) -> float:
        """How many times fewer weights."""
        return self.params / self.params_new

    @property
    def scheme_name(self) -> str:
        """The scheme without its ranks."""
        return self.scheme.partition(":")[0]

    @property
    def ranks(self) -> dict[str, int]:
        """The ranks by name."""
        pairs = (item.split("=") for item in self.scheme.partition(":")[2].split(","))
        return {name: int(value) for name, value in pairs}

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready data."""
        row = asdict(self)
        row["mac_reduction"], row["param_reduction"] = self.mac_reduction, self.param_reduction
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PointResult:
        """Return the point that `to_dict` has written.

        Raises
        ------
        DataError
            It is no such row.
        """
        try:
            return cls(**{field.name: row[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise DataError(
                f"no row of a sweep: {error}; start the sweep in a new folder"
            ) from None


COLUMNS = (*(each.name for each in fields(PointResult)), "mac_reduction", "param_reduction")


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """All points of a sweep, in the order of the grid.

    Attributes
    ----------
    model : str
        What the model is called.
    settings : dict
        What the sweep was asked for.
    held_out_images : int
        Number of held-out images.
    points : tuple of PointResult
        What was measured.
    skipped : tuple of Skipped
        What was left out, and why.
    notes : tuple of str
        What is to be known of the data, one sentence each.
    reused : int
        How many points came from an earlier run.
    provider : {"cpu", "cuda"}
        Where the models ran.
    filters : mapping of PointResult to Path
        Files with the weight of a layer on colour images, ``original`` and ``fitted``.
    """

    model: str
    settings: dict[str, Any]
    held_out_images: int
    points: tuple[PointResult, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()
    reused: int = 0
    provider: Provider = "cpu"
    filters: Mapping[PointResult, Path] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "version": SCHEMA_VERSION,
            "model": self.model,
            "settings": self.settings,
            "held_out_images": self.held_out_images,
            "points": [point.to_dict() for point in self.points],
            "skipped": [asdict(entry) for entry in self.skipped],
            "notes": list(self.notes),
            "reused": self.reused,
        }

    def to_document(self) -> dict[str, Any]:
        """Return `to_dict` as a document, with the machine that this runs on."""
        return measured("sweep", self.to_dict(), provider=self.provider)

    def to_csv(self) -> str:
        """Return the points as CSV with a header; an empty cell is None.

        Texts are made safe for a spreadsheet; as they are they stand in `to_dict`.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for point in self.points:
            row = point.to_dict().items()
            writer.writerow({k: spreadsheet_cell(v) if isinstance(v, str) else v for k, v in row})
        return text.getvalue()
