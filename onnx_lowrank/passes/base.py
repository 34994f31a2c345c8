"""Passes: one rewriting of a model each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.check import check_model


@dataclass(frozen=True)
class Refusal:
    """A layer or node that a pass left alone, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class PassResult:
    """What a pass did: whether the model changed, what changed, what was refused."""

    modified: bool
    changes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


class Pass(Protocol):
    """A rewriting of a model in place."""

    name: str

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        ...


class PassManager:
    """Runs passes in order; itself a pass. With `verify`, the model is checked after each."""

    name = "manager"

    def __init__(self, passes: Sequence[Pass], *, verify: bool = False) -> None:
        self.passes = tuple(passes)
        self.verify = verify

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Run all passes."""
        results = []
        for each in self.passes:
            results.append(each.run(model))
            if self.verify:
                try:
                    check_model(model)
                except ModelError as error:
                    raise ModelError(f"after pass {each.name}: {error}") from None
        return PassResult(
            any(r.modified for r in results),
            tuple(c for r in results for c in r.changes),
            tuple(c for r in results for c in r.refusals),
        )
