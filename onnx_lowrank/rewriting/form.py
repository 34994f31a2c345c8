"""The protocol of a form: how a structure is written into a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.rewriting.passes.base import Pass
from onnx_lowrank.schemes.base import Factors

Bias = NDArray[np.float64]


class Form(Protocol):
    """A way to write structures, the dense layer among them, into a graph."""

    @property
    def name(self) -> str:
        """What follows the ``@`` in a specification."""
        ...

    @property
    def plain(self) -> bool:
        """Whether its nodes read and write tensors as ONNX lays them out, whatever runs them.

        A runtime may give nodes that it knows a layout of their own, and then has to reorder
        tensors between them and nodes of a plain form.
        """
        ...

    @property
    def kernels(self) -> bool:
        """Whether it is fast only where the package's kernels are registered."""
        ...

    def refusal(self, structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any]) -> str | None:
        """Return in a clause why the form does not serve a structure in the place of a layer.

        Parameters
        ----------
        structure : type
            Class of the factors.
        conv : ConvSpec
            The layer.
        dtype : numpy.dtype
            Type of its weight.
        """
        ...

    def lower(
        self, factors: Factors, conv: ConvSpec, bias: Bias | None, builder: SubgraphBuilder
    ) -> None:
        """Build the nodes that compute `factors` into `builder`; only where nothing is refused."""
        ...

    def passes(self) -> Sequence[Pass]:
        """Return the passes that follow, over the whole model, once layers have this form."""
        ...


@dataclass(frozen=True, eq=False)
class Replacement:
    """What stands in the place of one layer.

    Attributes
    ----------
    factors : Factors
        Values of a structure.
    bias : ndarray, shape (F,), or None
        The bias that goes with them.
    form : Form
        How they are written.
    """

    factors: Factors
    bias: Bias | None
    form: Form
