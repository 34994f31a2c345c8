"""A model within a budget, and how it was found."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Any

from onnx_lowrank.pipelines.result import CompressResult
from onnx_lowrank.planning.latency import SavedLatencies
from onnx_lowrank.search.prediction import Prediction
from onnx_lowrank.search.result import SearchResult


@dataclass(frozen=True, eq=False)
class BudgetResult:
    """A model within a budget, or the nearest one.

    Attributes
    ----------
    compressed : CompressResult
        The model and what was done to it; its verification is the verdict, on samples that the
        search did not see.
    search : SearchResult
        How it was found.
    failures : tuple of str
        Which bounds it misses; empty if it is within the budget and faster.
    latency : SavedLatencies or None
        The latencies of another machine that the search went by; None where it measured here.
    expected : Prediction or None
        The loss on the samples of the verdict as predicted from those of the search alone; None
        where nothing was replaced, or there is nothing to predict it from.
    missed : tuple of str
        Those of `failures` that are of operations, parameters or the size of the file.
    """

    compressed: CompressResult
    search: SearchResult
    failures: tuple[str, ...]
    latency: SavedLatencies | None = None
    expected: Prediction | None = None
    missed: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the model is within the budget and faster than the original."""
        return not self.failures

    @property
    def measured(self) -> float | None:
        """The quantity of `expected` as the verdict measured it, on its first engine."""
        report = self.compressed.report.verification
        if self.expected is None or report is None:
            return None
        first = next(iter(report.results.values()))
        values: dict[str, float | None] = {
            "accuracy": first.accuracy.get("drop_points"),
            "agreement": 100 * (1 - (first.agreement["top1"] or 0)),
            "score": first.score.get("drop"),
            "sqnr_db": min(
                (o["sqnr_db"] for o in first.outputs if o["sqnr_db"] is not None), default=None
            ),
        }
        return values[self.expected.quantity]

    @property
    def as_expected(self) -> bool | None:
        """Whether the verdict was within the interval of what was expected."""
        if self.expected is None or self.measured is None:
            return None
        return self.expected.holds(self.measured)

    @property
    def predicted_for(self) -> str | None:
        """The machine that the latency is predicted for, in a clause; None if it was measured."""
        return None if self.latency is None else self.latency.origin

    def check_command(self, output: str | os.PathLike[str]) -> str | None:
        """Return the command that measures, on the other machine, what is predicted here."""
        table = self.latency
        if table is None:
            return None
        source = self.compressed.source or "MODEL"
        words = ["onnx-lowrank", "bench", os.fspath(source), os.fspath(output)]
        words += ["--engine", table.provider, "--batch", str(table.batch)]
        if table.threads is not None:
            words += ["--threads", str(table.threads)]
        for name, shape in table.input_shapes.items():
            words += ["--input-shape", f"{name}={','.join(map(str, shape))}"]
        return shlex.join(words)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            **self.compressed.report.to_dict(),
            "plan": self.compressed.plan.to_dict(),
            "search": self.search.to_dict(),
            "expected_drop": None
            if self.expected is None
            else {**self.expected.to_dict(), "seen": self.measured, "within": self.as_expected},
            "latency_measured_here": self.latency is None,
            "latency_predicted_for": self.predicted_for,
            "passed": self.passed,
            "failures": list(self.failures),
        }
