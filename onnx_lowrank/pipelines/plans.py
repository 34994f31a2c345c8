"""What becomes of each layer, from what a user gave as a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from onnx_lowrank.errors import ModelError, PlanError
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer, find_layers, layer_weight
from onnx_lowrank.planning.plan import (
    Plan,
    Rule,
    Weights,
    decide,
    default_plan,
    read_plan,
)
from onnx_lowrank.rewriting.forms import checked_forms

PlanSource = Plan | Path | Sequence[str | Rule]


def resolve_plan(
    layers: Sequence[Layer], plan: PlanSource | None, *, weights: Weights | None = None
) -> Plan:
    """Turn what a user gave as a plan into one decision per layer.

    `weights` gives a layer's weight by its name, for ranks that are a share of its energy.

    Raises
    ------
    PlanError, SchemeError
        If the plan cannot be read or does not fit the layers.
    """
    if plan is None:
        return default_plan(layers)
    if isinstance(plan, Plan):
        if [d.layer for d in plan.decisions] != [layer.name for layer in layers]:
            raise PlanError("the plan was made for other layers; make one for this model")
        return checked_forms(layers, plan)
    if isinstance(plan, Path):
        rules = read_plan(plan)
    else:
        rules = tuple(r if isinstance(r, Rule) else Rule.parse(r) for r in plan)
    return checked_forms(layers, decide(layers, rules, weights=weights))


def weights_of(model: onnx.ModelProto, layers: Sequence[Layer]) -> Weights:
    """Return a function from a layer's name to its weight, as the model has it."""
    by_name = {layer.name: layer for layer in layers}
    editor = GraphEditor(model)
    return lambda name: layer_weight(editor, by_name[name])


def listed_layers(
    model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]] | None
) -> tuple[Layer, ...]:
    """Return the layers of a model; raise ModelError where there are none."""
    layers = find_layers(model, input_shapes=input_shapes, check_values=True)
    if not layers:
        raise ModelError(
            "the model has no Conv and no fully connected layer; there is nothing to do"
        )
    return layers
