"""`inspect` and `cost`: what a model's layers are and what a plan would make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from onnx_lowrank.cache import Cache, default_folder
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.estimation.kept import last_latencies
from onnx_lowrank.estimation.ratios import time_at_half
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
from onnx_lowrank.search.candidate_schemes import candidate_schemes
from onnx_lowrank.types import ModelSource


def inspect(
    model: ModelSource,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    cache_dir: Path | None = None,
) -> tuple[LayerInfo, ...]:
    """List the layers of a model in graph order, and which schemes each can take.

    Parameters
    ----------
    model : path, bytes or ModelProto
        The model.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open; needed to count multiply-adds there.
    cache_dir : path, optional
        Where `estimate` keeps what it knows of the machine; the user's cache folder by default.
    """
    layers = listed_layers(open_model(model), input_shapes)
    known = last_latencies(Cache((cache_dir or default_folder()) / "search"))

    @cache
    def at_half(spec: ConvSpec) -> float | None:
        if known is None or spec.macs is None:
            return None
        return time_at_half(spec, candidate_schemes(spec), *known)

    return tuple(_layer_info(layer, at_half) for layer in layers)


def _layer_info(layer: Layer, at_half: Callable[[ConvSpec], float | None]) -> LayerInfo:
    schemes, reason = applicable(layer)
    forms: tuple[str, ...] = ()
    if layer.reason is None and layer.spec is not None:
        forms = layer_forms(map(SCHEMES.__getitem__, schemes), layer.spec, layer.dtype)
    half = at_half(layer.spec) if schemes and layer.spec is not None else None
    return LayerInfo(layer, schemes, reason, forms, half)


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
