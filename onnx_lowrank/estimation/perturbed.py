"""A network to whose layers' outputs changes can be added, to see what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnx_lowrank.data import Batch
from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.measure.verification.classifier import (
    are_probabilities,
    centred_logits,
    class_outputs,
)
from onnx_lowrank.runtime.engines import Engine

Values = dict[str, NDArray[Any]]
_EXACT, _CHANGE = "/exact", "/change"


@dataclass(frozen=True, eq=False)
class Observed:
    """What a model does with one batch.

    Attributes
    ----------
    batch : Batch
        The batch.
    read, written : dict of str to ndarray
        What layers read and write, by layer name.
    outputs : dict of str to ndarray
        The float outputs of the model.
    """

    batch: Batch
    read: Values
    written: Values
    outputs: Values


class PerturbedNetwork:
    """A model in which anything can be added to what its layers write.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; not changed.
    layers : sequence of Layer
        Layers of float32; those of the main graph are taken.
    engine : Engine
        Where it runs.

    Raises
    ------
    ModelError
        It cannot be loaded, or has no float output.
    """

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], engine: Engine) -> None:
        graph = model.graph
        there = {name for node in graph.node for name in node.output}
        layers = [layer for layer in layers if layer.node.output[0] in there]
        self._written = {layer.name: layer.node.output[0] for layer in layers}
        self._read = {layer.name: layer.node.input[0] for layer in layers}
        shown = [tensor + _EXACT for tensor in self._written.values()]
        shown += [tensor for tensor in self._read.values() if tensor in there]
        self._loaded = engine.load(_with_changes(model, set(self._written.values()), shown))
        own = {value.name for value in graph.output}
        self._floats = [
            output.name
            for output in self._loaded.outputs
            if output.name in own and output.dtype is not None and output.dtype.kind == "f"
        ]
        if not self._floats:
            raise ModelError("no output of the model is of floats; there is no loss to estimate")

    def observe(self, batch: Batch) -> Observed:
        """Run the model as it is."""
        written = {name: tensor + _EXACT for name, tensor in self._written.items()}
        names = {output.name for output in self._loaded.outputs}
        read = {name: tensor for name, tensor in self._read.items() if tensor in names}
        wanted = list(dict.fromkeys([*self._floats, *written.values(), *read.values()]))
        found = self._run(batch, {}, wanted)
        fed = {name: x for name, x in self._read.items() if x in batch.feeds}
        return Observed(
            batch,
            read={
                **{name: found[tensor] for name, tensor in read.items()},
                **{name: batch.feeds[tensor] for name, tensor in fed.items()},
            },
            written={name: found[tensor] for name, tensor in written.items()},
            outputs={name: found[name] for name in self._floats},
        )

    def noise(self, seen: Observed, changes: Mapping[str, NDArray[Any]]) -> float:
        """Return the squared error over the squared signal when layers' outputs change.

        Of the logits, centred, where one output holds scores of classes; otherwise of the worst
        output. It is infinite where that is not finite.

        Parameters
        ----------
        seen : Observed
            A batch without changes.
        changes : mapping of str to ndarray
            What is added to the outputs of layers, by layer name.
        """
        exact, found = seen.outputs, self._run(seen.batch, changes, self._floats)
        classes = class_outputs(exact, seen.batch.rows)
        if len(classes) == 1:
            probable = are_probabilities(exact[classes[0]])
            ours, theirs = (
                centred_logits(each[classes[0]], probabilities=probable) for each in (exact, found)
            )
            return _noise(ours, theirs)
        return max(_noise(exact[name], found[name]) for name in self._floats)

    def _run(self, batch: Batch, changes: Mapping[str, NDArray[Any]], wanted: list[str]) -> Values:
        none = np.zeros(1, np.float32)
        added = {
            tensor + _CHANGE: changes[name].astype(np.float32) if name in changes else none
            for name, tensor in self._written.items()
        }
        return dict(self._loaded.run({**batch.feeds, **added}, wanted))


def _with_changes(
    model: onnx.ModelProto, tensors: set[str], shown: Sequence[str]
) -> onnx.ModelProto:
    """Return a copy in which inputs are added to tensors, with more tensors among its outputs."""
    copy = load_model(model)
    graph = copy.graph
    element = onnx.TensorProto.FLOAT
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for place, tensor in enumerate(node.output):
            if tensor in tensors:
                node.output[place] = tensor + _EXACT
                change = tensor + _CHANGE
                nodes.append(helper.make_node("Add", [tensor + _EXACT, change], [tensor]))
                graph.input.append(helper.make_tensor_value_info(change, element, None))
    ordered = helper.make_graph(nodes, "", [], []).node
    del graph.node[:], graph.value_info[:]
    graph.node.extend(ordered)
    known = {value.name for value in (*graph.output, *graph.input)}
    for name in dict.fromkeys(shown):
        if name not in known:
            graph.output.append(helper.make_tensor_value_info(name, element, None))
    return copy


def _noise(exact: NDArray[Any], found: NDArray[Any]) -> float:
    signal = exact.astype(np.float64)
    error = found.astype(np.float64) - signal
    power = float(np.sum(signal**2))
    noise = float(np.sum(error**2)) / power if power > 0 else np.inf
    return noise if np.isfinite(noise) else np.inf
