"""A candidate: what one layer could become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_lowrank.fitting.layer import LayerFit
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.rewriting.form import Form, Replacement
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.schemes import Scheme


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer, a scheme with its fit, and the form in which it is written.

    Attributes
    ----------
    fit : LayerFit
        The layer's name, the scheme and its factors.
    form : Form
        How they are written.
    """

    fit: LayerFit
    form: Form

    @property
    def replacement(self) -> Replacement:
        """What stands in the layer's place."""
        return Replacement(self.fit.factors, self.fit.bias, self.form)

    @property
    def spec(self) -> str:
        """The specification a user would type; without a form where that is standard ops."""
        suffix = "" if self.form is STANDARD else f"@{self.form.name}"
        return f"{self.fit.scheme.spec}{suffix}"


Chosen = Mapping[str, Candidate]
"""The candidates of the layers that are replaced, by layer name."""


@dataclass(frozen=True, eq=False)
class Option:
    """What a layer could become, timed; its fit may not be made yet.

    Attributes
    ----------
    place : int
        Of the candidate among those of the layer.
    scheme : Scheme
        A structure, or the layer as it is.
    form : Form
        How it is written.
    error : float
        Relative error of the layer's output: of its fit, or as fits at other ranks predict it.
    timed : Timed
        Its latency beside the layer's, alone.
    seconds : float
        What it adds to the time of the model; less than 0 where it saves.
    macs, params : int
        Of all its nodes.
    added_bytes : int
        Added to the file of a model that no longer stores the layer's own weight.
    """

    place: int
    scheme: Scheme
    form: Form
    error: float
    timed: Timed
    seconds: float
    macs: int
    params: int
    added_bytes: int = 0
