"""What candidates add to a model's parameters and to its file, and what replaced layers free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.search.knapsack import Together
from onnx_lowrank.storage import count_stored, freed_by


@dataclass(frozen=True)
class Freed:
    """What is stored no more when layers are replaced.

    Attributes
    ----------
    params, bytes : tuple of int
        By layer, of what it alone reads.
    shared_params, shared_bytes : tuple of Together
        Of what several of the layers read; a tensor that any other part of the model reads stays.
    base_params : int
        Parameters of the model, each stored tensor counted once.
    """

    params: tuple[int, ...]
    bytes: tuple[int, ...]
    shared_params: tuple[Together, ...]
    shared_bytes: tuple[Together, ...]
    base_params: int


def freed(layers: Sequence[Layer], names: Sequence[str]) -> Freed:
    """Return what replacing some layers frees.

    Parameters
    ----------
    layers : sequence of Layer
        All of the original model.
    names : sequence of str
        Those that can be replaced.
    """
    weights = {layer.name: layer.weights or () for layer in layers}
    index = {name: place for place, name in enumerate(names)}
    alone = {frozenset({name}): (0, 0) for name in names}
    shared: dict[tuple[int, ...], tuple[int, int]] = {}
    for group, what in freed_by(weights).items():
        if len(group) == 1:
            alone[group] = what
        elif all(name in index for name in group):
            shared[tuple(sorted(index[name] for name in group))] = what
    own = [alone[frozenset({name})] for name in names]
    return Freed(
        params=tuple(params for params, _ in own),
        bytes=tuple(size for _, size in own),
        shared_params=tuple(Together(group, params) for group, (params, _) in shared.items()),
        shared_bytes=tuple(Together(group, size) for group, (_, size) in shared.items()),
        base_params=count_stored(w for each in weights.values() for w in each)[0],
    )


def added_bytes(single: onnx.ModelProto, replaced: onnx.ModelProto, weight: str) -> int:
    """Return what a candidate adds to the file of a model that no longer stores the weight.

    Functions of portable nodes count with every candidate, though a model has each but once.

    Parameters
    ----------
    single, replaced : onnx.ModelProto
        Models of the layer alone, before and after.
    weight : str
        Name of its weight in `single`.
    """
    dense = sum(t.ByteSize() for t in single.graph.initializer if t.name == weight)
    return int(replaced.ByteSize() - single.ByteSize() + dense)
