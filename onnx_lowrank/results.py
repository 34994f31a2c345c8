"""What the functions of the API return."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnx_lowrank.graph.io import save_model
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.passes.base import Refusal
from onnx_lowrank.planning.cost import Cost, total_cost
from onnx_lowrank.planning.fit import LayerFit
from onnx_lowrank.planning.plan import Plan
from onnx_lowrank.verification import VerifyReport


@dataclass(frozen=True)
class LayerInfo:
    """One row of `inspect`."""

    layer: Layer
    schemes: tuple[str, ...]
    reason: str | None

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
            "macs": conv.macs if conv else None,
            "params": conv.params if conv else None,
            "schemes": list(self.schemes),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class CostReport:
    """Cost of every layer before and after a plan, and their sum."""

    plan: Plan
    layers: tuple[Cost, ...]

    @property
    def total(self) -> Cost:
        """The sum over all layers."""
        return total_cost(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "version": 1,
            "layers": [cost.to_dict() for cost in self.layers],
            "total": self.total.to_dict(),
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
    """

    cost: CostReport
    fits: dict[str, LayerFit]
    changes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    verification: VerifyReport | None
    notes: tuple[str, ...] = ()

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
        }


@dataclass(frozen=True)
class CompressResult:
    """A rewritten model and the report of what was gained."""

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
