"""What the functions of the API return."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from onnx_lowrank.files import source_path
from onnx_lowrank.fitting.layer import LayerFit
from onnx_lowrank.graph.io import file_size, save_model, serialised_size
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.measure.verification import VerifyReport
from onnx_lowrank.planning.cost import (
    Cost,
    known_cost,
    plan_costs,
    total_cost,
    uncounted,
    untouched,
)
from onnx_lowrank.planning.plan import Plan
from onnx_lowrank.rewriting.passes.base import Refusal


@dataclass(frozen=True)
class LayerInfo:
    """One row of `inspect`.

    Attributes
    ----------
    layer : Layer
        The layer.
    schemes : tuple of str
        Names of the schemes that it can take.
    reason : str or None
        Why there is none.
    forms : tuple of str
        Names of the forms that it, as it is or by one of these schemes, can have.
    time_at_half : float or None
        The least time with about half of its multiply-adds, over its own, as predicted; None where
        no estimate was made on this machine.
    """

    layer: Layer
    schemes: tuple[str, ...]
    reason: str | None
    forms: tuple[str, ...] = ()
    time_at_half: float | None = None

    @property
    def bytes(self) -> int | None:
        """Bytes of its weights as they are stored, or None where they are unknown."""
        weights = self.layer.weights
        return None if weights is None else sum(weight.bytes for weight in weights)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready data."""
        conv = self.layer.spec
        return {
            "name": self.layer.name,
            "op": self.layer.op,
            "kernel_shape": list(conv.kernel) if conv else None,
            "strides": list(conv.strides) if conv else None,
            "group": conv.group if conv else None,
            "in_channels": conv.in_channels if conv else None,
            "out_channels": conv.out_channels if conv else None,
            "macs": self.layer.macs,
            "params": self.layer.params,
            "bytes": self.bytes,
            "schemes": list(self.schemes),
            "forms": list(self.forms),
            "reason": self.reason,
            "time_at_half": self.time_at_half,
        }


@dataclass(frozen=True)
class FileBytes:
    """Sizes of the files of two models, external data included.

    Attributes
    ----------
    before : int
        Of the original: on disk where it is a file there, else as it would be written.
    after : int
        Of the result as it is written.
    """

    before: int
    after: int

    @classmethod
    def of(cls, source: object, original: onnx.ModelProto, result: onnx.ModelProto) -> FileBytes:
        """Return the sizes of `original`, read from `source`, and of `result`."""
        path = source_path(source)
        before = serialised_size(original) if path is None else file_size(path)
        return cls(before, serialised_size(result))


@dataclass(frozen=True)
class CostReport:
    """Cost of every layer before and after a plan, and their sum.

    Attributes
    ----------
    plan : Plan
        A decision for every layer.
    layers : tuple of Cost
        The layers' costs, in the order of the plan.
    """

    plan: Plan
    layers: tuple[Cost, ...]

    @property
    def total(self) -> Cost:
        """The sum over all layers, each stored tensor counted once."""
        return total_cost(self.layers)

    @property
    def known(self) -> Cost:
        """The sum over the layers whose cost is known: the least that all need."""
        return known_cost(self.layers)

    @property
    def uncounted(self) -> dict[str, tuple[str, ...]]:
        """Names of the layers whose "macs" and "params" are unknown."""
        return uncounted(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "version": 1,
            "layers": [cost.to_dict() for cost in self.layers if cost.params is not None],
            "total": self.total.to_dict(),
            "uncounted": {what: list(names) for what, names in self.uncounted.items()},
        }


def inspected_cost(rows: Sequence[LayerInfo]) -> CostReport:
    """Return the cost of the layers that `inspect` lists, as they are."""
    layers = [row.layer for row in rows]
    plan = untouched(layers)
    return CostReport(plan, plan_costs(layers, plan))


def inspected(rows: Sequence[LayerInfo]) -> dict[str, Any]:
    """Return what `inspect` lists as JSON-ready data, with its sums."""
    report = inspected_cost(rows)
    total = report.total
    return {
        "layers": [row.to_dict() for row in rows],
        "total": {"macs": total.macs, "params": total.params, "bytes": total.bytes},
        "uncounted": report.to_dict()["uncounted"],
    }


@dataclass(frozen=True)
class CompressReport:
    """What `compress` did.

    Attributes
    ----------
    cost : CostReport
        Operations and parameters before and after.
    fits : dict
        How well each replaced layer was fitted, by layer name.
    changes : tuple of str
        What the passes changed, one sentence each.
    refusals : tuple of Refusal
        What the passes are for and yet left alone, and why.
    verification : VerifyReport or None
        Comparison of the two models in onnxruntime; None if it was not asked for.
    notes : tuple of str
        What is to be known of the calibration data and of the search, one sentence each.
    file_bytes : FileBytes or None
        Sizes of the files of the original and of the result.
    seconds : mapping of str to float
        What each step took, and their total.
    """

    cost: CostReport
    fits: dict[str, LayerFit]
    changes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    verification: VerifyReport | None
    notes: tuple[str, ...] = ()
    file_bytes: FileBytes | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, str]:
        """Why each layer that was not replaced was kept, by layer name."""
        return {d.layer: d.reason or "" for d in self.cost.plan.decisions if d.scheme is None}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        fits = [
            {
                "name": fit.layer,
                "scheme": fit.scheme.spec,
                "metric": fit.metric,
                "start_error": fit.start_error,
                "error": fit.error,
                "seconds": fit.seconds,
                "cancellation": fit.cancellation,
            }
            for fit in self.fits.values()
        ]
        return {
            "version": 1,
            "cost": self.cost.to_dict(),
            "fits": fits,
            "kept": [{"name": name, "reason": why} for name, why in self.kept.items()],
            "changes": list(self.changes),
            "refusals": [{"name": each.layer, "reason": each.reason} for each in self.refusals],
            "notes": list(self.notes),
            "verification": self.verification.to_dict() if self.verification else None,
            "file_bytes": self.file_bytes.before if self.file_bytes else None,
            "file_bytes_new": self.file_bytes.after if self.file_bytes else None,
            "seconds": dict(self.seconds),
        }


@dataclass(frozen=True)
class CompressResult:
    """A rewritten model and the report of what was gained.

    Attributes
    ----------
    model : onnx.ModelProto
        The rewritten model.
    report : CompressReport
        What was done to it.
    source : path or None
        The file that the original was read from; `save` overwrites it by force only.
    """

    model: onnx.ModelProto
    report: CompressReport
    source: Path | None = None

    @property
    def plan(self) -> Plan:
        """The plan that was carried out."""
        return self.report.cost.plan

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the model atomically.

        Raises
        ------
        OutputError
            If `path` cannot be written, or is the model's own file and `force` is not set.
        """
        save_model(self.model, path, source=self.source, force=force)
