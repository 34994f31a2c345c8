"""`rewrite`: the one place that copies a model, normalises it, replaces layers and checks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import onnx

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.rewriting.form import Form, Replacement
from onnx_lowrank.rewriting.passes.absorb_permutations import AbsorbPermutationsPass
from onnx_lowrank.rewriting.passes.base import Pass, PassManager, PassResult
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.passes.replace_layers import ReplaceLayersPass

Shapes = Mapping[str, tuple[int, ...]]
NOTHING: Mapping[str, Replacement] = MappingProxyType({})


def rewrite(
    original: onnx.ModelProto,
    replacements: Mapping[str, Replacement],
    *,
    forms: Sequence[Form] = (),
    input_shapes: Shapes | None = None,
) -> tuple[onnx.ModelProto, PassResult]:
    """Return a checked copy of a model with layers replaced, and what was changed.

    Parameters
    ----------
    original : onnx.ModelProto
        The model; not changed.
    replacements : mapping of str to Replacement
        By layer name.
    forms : sequence of Form
        Those whose passes over the whole model run, besides the forms of the replacements.
    input_shapes : mapping, optional
        Shapes of graph inputs that the model leaves open.

    Raises
    ------
    ModelError
        The result is no valid model.
    """
    model, cleaned = normalised(original, replacements.keys())
    changed, lowered = replace_layers(model, replacements, forms=forms, input_shapes=input_shapes)
    check_model(changed)
    return changed, PassResult.joined([cleaned, lowered])


def replace_layers(
    model: onnx.ModelProto,
    replacements: Mapping[str, Replacement],
    *,
    forms: Iterable[Form] = (),
    input_shapes: Shapes | None = None,
) -> tuple[onnx.ModelProto, PassResult]:
    """Return a copy of a normalised model with layers replaced, and what was changed.

    Parameters
    ----------
    model : onnx.ModelProto
        The model, the layers in question normalised; not changed.
    replacements, forms, input_shapes
        As of `rewrite`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    used = dict.fromkeys([*forms, *(each.form for each in replacements.values())])
    passes: list[Pass] = [
        ReplaceLayersPass(replacements, input_shapes=input_shapes),
        AbsorbPermutationsPass(frozenset(replacements)),
        *(each for form in used for each in form.passes()),
    ]
    return copy, PassManager(passes).run(copy)
