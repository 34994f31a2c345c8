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
    """What a pass did.

    Attributes
    ----------
    modified : bool
        Whether the model changed.
    changes : tuple of str
        What changed, a sentence each.
    refusals : tuple of Refusal
        What the pass is for and yet left alone.
    frozen : tuple of str
        Inputs that a caller might leave out (from IR 4 on, those with an initializer) whose default
        is part of a layer now.
    """

    modified: bool
    changes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    frozen: tuple[str, ...] = ()

    @classmethod
    def joined(cls, results: Sequence[PassResult]) -> PassResult:
        """Return what several passes did, one after the other."""
        return cls(
            any(result.modified for result in results),
            tuple(change for result in results for change in result.changes),
            tuple(refusal for result in results for refusal in result.refusals),
            tuple(dict.fromkeys(name for result in results for name in result.frozen)),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a caller of the model has to know, a sentence each."""
        if not self.frozen:
            return ()
        names = ", ".join(f"'{name}'" for name in self.frozen[:3])
        more = f" and {len(self.frozen) - 3} more" if len(self.frozen) > 3 else ""
        return (
            f"optional inputs are frozen at their defaults in layers that were replaced: {names}"
            f"{more}",
        )


class Pass(Protocol):
    """A rewriting of a model in place; a second run changes nothing."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        ...


class PassManager:
    """Runs passes in order; itself a pass.

    Parameters
    ----------
    passes : sequence of Pass
        In the order in which they run.
    verify : bool
        Whether to check the model after each.
    """

    name = "manager"

    def __init__(self, passes: Sequence[Pass], *, verify: bool = False) -> None:
        self.passes = tuple(passes)
        self.verify = verify

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Run all passes and join their results.

        Raises
        ------
        ModelError
            The model is invalid after a pass, which the message names; only with `verify`.
        """
        results = []
        for each in self.passes:
            results.append(each.run(model))
            if self.verify:
                try:
                    check_model(model)
                except ModelError as error:
                    raise ModelError(f"after pass {each.name}: {error}") from None
        return PassResult.joined(results)
