"""Replace layers by the low-rank subgraphs that their factors stand for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.fragment import Fragment
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.lowering import portable, standard
from onnx_lowrank.lowering.functions import declare_functions
from onnx_lowrank.passes.base import PassResult, Refusal
from onnx_lowrank.schemes.factors import Factors


class ApproximateConvPass:
    """Replace every layer that has factors by their nodes.

    Parameters
    ----------
    fits : mapping
        Factors and bias, ``(F,)`` or None, by layer name.
    input_shapes : mapping, optional
        Shapes of graph inputs that the model leaves open; they only help to choose the form of 1x1
        stages.
    portable : bool
        Whether structures that have an op of their own become portable nodes. Refused, and replaced
        by standard ops: layers that the kernels do not serve.
    """

    name = "approximate-conv"

    def __init__(
        self,
        fits: Mapping[str, tuple[Factors, NDArray[np.float64] | None]],
        *,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
        portable: bool = False,
    ) -> None:
        self.fits = fits
        self.portable = portable
        self.input_shapes = input_shapes

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        layers = find_layers(model, input_shapes=self.input_shapes)
        editor = GraphEditor(model)
        changes, refusals = [], []
        for layer in layers:
            if layer.name not in self.fits or layer.spec is None:
                continue
            factors, bias = self.fits[layer.name]
            fragment = Fragment(layer.name, layer.dtype)
            if self.portable:
                reason = portable.lower(factors, layer.spec, bias, fragment)
                refusals += [Refusal(layer.name, reason)] if reason else []
            else:
                standard.lower(factors, layer.spec, bias, fragment)
            editor.replace(layer.node, fragment)
            changes.append(f"{layer.name}: replaced by {type(factors).__name__}")
        editor.remove_dead()
        declare_functions(model)
        return PassResult(bool(changes), tuple(changes), tuple(refusals))
