"""The forms that layers can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, suggest
from onnx_lowrank.graph.fragment import Fragment
from onnx_lowrank.registry import Registry
from onnx_lowrank.rewriting.form import Bias, Form
from onnx_lowrank.rewriting.lowering import portable, standard
from onnx_lowrank.rewriting.passes.base import Pass
from onnx_lowrank.rewriting.passes.fuse_activation import FuseActivationPass
from onnx_lowrank.rewriting.passes.portable_lrn import PortableLrnPass
from onnx_lowrank.schemes.base import Factors


class StandardForm:
    """Standard ops alone, chains of Conv and MatMul; any structure but the dense layer."""

    name = "standard"
    plain = False
    kernels = False

    def refusal(
        self, structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any]
    ) -> str | None:
        """Return why a structure has no chain of standard ops."""
        del conv, dtype
        return standard.refusal(structure)

    def lower(
        self, factors: Factors, conv: ConvSpec, bias: Bias | None, fragment: Fragment
    ) -> None:
        """Build the chain."""
        standard.lower(factors, conv, bias, fragment)

    def passes(self) -> Sequence[Pass]:
        """Return none."""
        return ()


class PortableForm:
    """One node of this package's ops, whose body is standard ops; with it LRN, and activations."""

    name = "portable"
    plain = True
    kernels = True

    def refusal(
        self, structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any]
    ) -> str | None:
        """Return why there is no node, or none that kernels serve."""
        return portable.refusal(structure, conv, dtype)

    def lower(
        self, factors: Factors, conv: ConvSpec, bias: Bias | None, fragment: Fragment
    ) -> None:
        """Build the node."""
        portable.lower(factors, conv, bias, fragment)

    def passes(self) -> Sequence[Pass]:
        """Return those that let nodes of this package do more."""
        return PortableLrnPass(), FuseActivationPass()


STANDARD = StandardForm()
PORTABLE = PortableForm()
FORMS: Registry[Form] = Registry((STANDARD, PORTABLE))
"""All forms; adding one takes its file, a line here, and a test."""


def find_form(name: str) -> Form:
    """Return the form of a name; raise PlanError where there is none."""
    if name not in FORMS.names:
        hint = suggest(name, FORMS.names) or f"; choose one of {', '.join(FORMS.names)}"
        raise PlanError(f"there is no form '{name}'{hint}")
    return FORMS[name]
