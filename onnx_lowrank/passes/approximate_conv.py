"""Replace layers by the low-rank subgraphs that their factors stand for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.fragment import Fragment
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.lowering.standard import lower
from onnx_lowrank.passes.base import PassResult
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
    """

    name = "approximate-conv"

    def __init__(
        self,
        fits: Mapping[str, tuple[Factors, NDArray[np.float64] | None]],
        *,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.fits = fits
        self.input_shapes = input_shapes

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        layers = find_layers(model, input_shapes=self.input_shapes)
        editor = GraphEditor(model)
        changes = []
        for layer in layers:
            if layer.name not in self.fits or layer.spec is None:
                continue
            factors, bias = self.fits[layer.name]
            fragment = Fragment(layer.name, layer.dtype)
            lower(factors, layer.spec, bias, fragment)
            editor.replace(layer.node, fragment)
            changes.append(f"{layer.name}: replaced by {type(factors).__name__}")
        editor.remove_dead()
        return PassResult(modified=bool(changes), changes=tuple(changes))
