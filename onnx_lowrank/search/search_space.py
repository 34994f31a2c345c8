"""What a search works on: the layers worth a search, and their candidates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import onnx

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import ModelError, PlanError
from onnx_lowrank.graph.layers import Layer, find_layers
from onnx_lowrank.planning.plan import applicable, kept_as_asked
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.forms import STANDARD, check_written, forms_for
from onnx_lowrank.schemes import SCHEMES, Scheme
from onnx_lowrank.schemes.dense import DenseFactors
from onnx_lowrank.search.candidate_schemes import candidate_schemes
from onnx_lowrank.search.settings import SETTINGS, SearchSettings

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
    layers: Sequence[Layer],
    *,
    kept: Mapping[str, str] = MappingProxyType({}),
    forms: Sequence[Form] = (),
    settings: SearchSettings = SETTINGS,
) -> tuple[SearchSpace, dict[str, str]]:
    """Return the layers worth a fit with their candidates, and why each other one is not.

    It depends on shapes alone: latencies measured elsewhere are of the same candidates.

    Parameters
    ----------
    layers : sequence of Layer
        Of a normalised model, their sizes known.
    kept : mapping of str to str
        Why some are left out in any case, by name.
    forms : sequence of Form
        Those that candidates may have: a layer that no scheme suits may have another one of them.
    settings : SearchSettings
        Which layers count, and what is tried on them.

    Returns
    -------
    dict of str to (Layer, tuple of Scheme), dict of str to str
        Both by layer name.

    Raises
    ------
    SchemeError
        A scheme of the list cannot be written: see `check_written`.
    """
    check_written(SCHEMES)
    specs = [layer.spec for layer in layers if layer.spec is not None]
    least = settings.least_share
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
        elif spec.macs < least * macs and spec.params < least * params:
            share = 100 * spec.macs / macs
            reasons[layer.name] = f"it has only {share:.2g} % of the multiply-adds"
        elif (schemes := candidate_schemes(spec, settings)) or _other_forms(layer, spec, forms):
            found[layer.name] = (layer, schemes)
        else:
            refusal = applicable(layer)[1]
            reasons[layer.name] = refusal or "no scheme reduces its multiply-adds"
    return found, reasons


def _other_forms(layer: Layer, spec: ConvSpec, forms: Sequence[Form]) -> list[Form]:
    """Return the forms besides standard ops that the layer may have as it is."""
    serving = forms_for(DenseFactors, spec, layer.dtype, forms)
    return [form for form in serving if form is not STANDARD]
