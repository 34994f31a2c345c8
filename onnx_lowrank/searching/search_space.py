"""What a search works on: the layers worth a search, and their candidates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import onnx

from onnx_lowrank.errors import ModelError, PlanError
from onnx_lowrank.graph.layers import Layer, find_layers
from onnx_lowrank.planning.candidates import candidates
from onnx_lowrank.planning.plan import applicable, kept_as_asked
from onnx_lowrank.schemes import Scheme

LEAST_SHARE = 0.005  # of all operations and of all parameters: a layer below both is kept
SearchSpace = dict[str, tuple[Layer, tuple[Scheme, ...]]]
"""The layers worth a search, each with the schemes to try."""


def searched(
    model: onnx.ModelProto, keep: Collection[str] = ()
) -> tuple[frozenset[str], dict[str, str]]:
    """Return the layers that a search may replace, and why some are kept as asked, both by name.

    Parameters
    ----------
    model : onnx.ModelProto
        The model as the user has it.
    keep : collection of str
        Names or globs of layers to keep.

    Raises
    ------
    ModelError
        No layer can be approximated.
    PlanError
        A name matches no layer, or none is left.
    """
    layers = find_layers(model, check_values=True)
    possible = frozenset(layer.name for layer in layers if layer.reason is None)
    if not possible:
        reasons = "; ".join(f"{layer.name}: {layer.reason}" for layer in layers[:3])
        raise ModelError(
            f"the model has no layer that could be approximated{f' ({reasons})' if reasons else ''}"
            "; there is nothing to do"
        )
    kept = kept_as_asked([layer.name for layer in layers], keep)
    if not possible - kept.keys():
        raise PlanError("every layer that could be approximated is to be kept; keep fewer")
    return possible - kept.keys(), kept


def search_space(
    layers: Sequence[Layer], *, kept: Mapping[str, str] = MappingProxyType({})
) -> tuple[SearchSpace, dict[str, str]]:
    """Return the layers worth a fit with their candidates, and why each other one is not.

    It depends on shapes alone: latencies measured elsewhere are of the same candidates.

    Parameters
    ----------
    layers : sequence of Layer
        Of a normalised model, their sizes known.
    kept : mapping of str to str
        Why some are left out in any case, by name.

    Returns
    -------
    dict of str to (Layer, tuple of Scheme), dict of str to str
        Both by layer name.
    """
    specs = [layer.spec for layer in layers if layer.spec is not None]
    macs = sum(spec.macs or 0 for spec in specs)
    params = sum(spec.params for spec in specs)
    found: SearchSpace = {}
    reasons = {}
    for layer in layers:
        spec = layer.spec
        if layer.name in kept:
            reasons[layer.name] = kept[layer.name]
        elif layer.reason is not None or spec is None:
            reasons[layer.name] = layer.reason or "its shape cannot be read"
        elif spec.macs is None or spec.input_size is None:
            reasons[layer.name] = "its input size is unknown; give --input-shape"
        elif spec.macs < LEAST_SHARE * macs and spec.params < LEAST_SHARE * params:
            share = 100 * spec.macs / macs
            reasons[layer.name] = f"it has only {share:.2g} % of the multiply-adds"
        elif schemes := candidates(spec):
            found[layer.name] = (layer, schemes)
        else:
            refusal = applicable(layer)[1]
            reasons[layer.name] = refusal or "no scheme reduces its multiply-adds"
    return found, reasons
