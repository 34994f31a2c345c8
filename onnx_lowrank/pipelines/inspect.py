"""`inspect` and `cost`: what a model's layers are and what a plan would make of them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.pipelines.plans import PlanSource, listed_layers, resolve_plan, weights_of
from onnx_lowrank.pipelines.result import (
    CostReport,
    LayerInfo,
)
from onnx_lowrank.planning.cost import plan_costs
from onnx_lowrank.planning.plan import (
    applicable,
)
from onnx_lowrank.rewriting.forms import layer_forms
from onnx_lowrank.schemes import SCHEMES
from onnx_lowrank.types import ModelSource


def inspect(
    model: ModelSource, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[LayerInfo, ...]:
    """List the layers of a model in graph order, and which schemes each can take.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open; needed to count multiply-adds there.
    """
    layers = listed_layers(open_model(model), input_shapes)
    return tuple(_layer_info(layer) for layer in layers)


def _layer_info(layer: Layer) -> LayerInfo:
    schemes, reason = applicable(layer)
    forms: tuple[str, ...] = ()
    if layer.reason is None and layer.spec is not None:
        forms = layer_forms(map(SCHEMES.__getitem__, schemes), layer.spec, layer.dtype)
    return LayerInfo(layer, schemes, reason, forms)


def cost(
    model: ModelSource,
    *,
    plan: PlanSource | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> CostReport:
    """Count operations and parameters before and after a plan, without fitting anything.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model.
    plan, input_shapes
        As of `compress`.

    Raises
    ------
    ModelError, PlanError, SchemeError
        If an input is at fault; the message names the remedy.
    """
    loaded = open_model(model)
    layers = listed_layers(loaded, input_shapes)
    decided = resolve_plan(layers, plan, weights=weights_of(loaded, layers))
    return CostReport(decided, plan_costs(layers, decided))
