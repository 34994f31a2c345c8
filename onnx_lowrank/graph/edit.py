"""Editing of a ModelProto in place: what is not touched stays byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_lowrank.graph.constants import Constants
from onnx_lowrank.graph.ops import STANDARD_DOMAINS
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.graph.without_weights import bodies
from onnx_lowrank.types import AnyArray


class GraphEditor:
    """Reads and changes the main graph of a model.

    Bodies of If, Loop and Scan and model-local functions are left alone, but what bodies read from
    the main graph counts as read by the node that has them. Nodes stay in topological order.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; edited in place, by nothing else as long as the editor is in use.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = opset_version(model)
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._outputs = {value.name for value in self.graph.output}
        self._producers: dict[str, onnx.NodeProto] = {}
        self._constants = Constants(model, self._initializers, self._producers, self.opset)
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        self._names = set(all_names(self.graph))
        self._unused: dict[str, None] = {}  # what an edit stopped reading, in order
        self._gone: set[str] = set()  # names of tensors that an edit took out of the graph
        for node in self.graph.node:
            self._register(node)

    def _register(self, node: onnx.NodeProto) -> None:
        for name in filter(None, node.output):
            self._producers[name] = node
        for name in dict.fromkeys(reads(node)):
            self._consumers.setdefault(name, []).append(node)

    def _unregister(self, node: onnx.NodeProto) -> None:
        for name in filter(None, node.output):
            del self._producers[name]
        for name in dict.fromkeys(reads(node)):
            self._consumers[name] = [other for other in self._consumers[name] if other is not node]

    # Reading

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that writes a tensor, or None."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor; a node with a body counts if the body reads it."""
        return list(self._consumers.get(name, ()))

    def is_graph_output(self, name: str) -> bool:
        """Whether a tensor is an output of the model."""
        return name in self._outputs

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """Return the initializer of a name, one that is listed among the inputs too, or None."""
        return self._initializers.get(name)

    def optional_inputs(self, name: str) -> list[str]:
        """Return the optional inputs that a tensor is computed from."""
        return self._constants.optional_inputs(name)

    def constant(self, name: str, *, defaults: bool = False) -> AnyArray | None:
        """Return the value of a tensor that does not depend on the model's inputs, or None.

        Initializers, and whatever nodes of the standard domain compute from constants alone. The
        array may be a read-only view.

        Parameters
        ----------
        name : str
            The tensor.
        defaults : bool
            Whether optional inputs count as the constants that they are by default: a caller may
            give another value.
        """
        if not defaults and self.optional_inputs(name):
            return None
        return self._constants.value(name)

    # Changing

    def unique_name(self, base: str) -> str:
        """Return `base`, with a number behind it if anything in the model has that name already."""
        name, number = base, 1
        while name in self._names:
            name, number = f"{base}_{number}", number + 1
        self._names.add(name)
        return name

    def add_initializer(self, base: str, array: AnyArray) -> str:
        """Add a constant and return its name, `base` if that is free.

        Below IR 4 it is listed among the inputs too, as that IR demands.
        """
        return self._add_initializer(self.unique_name(base), array)

    def _add_initializer(self, name: str, array: AnyArray) -> str:
        tensor = self.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self._initializers[name] = tensor
        if self.model.ir_version < 4:
            self.graph.input.append(
                helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            )
        return name

    def fold(self, name: str) -> None:
        """Let a computed constant be an initializer of the same name.

        Parameters
        ----------
        name : str
            The only output of its node, with a value that is constant by default.
        """
        node, value = self._producers[name], self.constant(name, defaults=True)
        if value is None or list(node.output) != [name]:
            raise ValueError(f"'{name}' is not the one constant output of a node")
        self.remove(node)
        self._gone.discard(name)
        self._add_initializer(name, value)

    def set_constant(self, node: onnx.NodeProto, index: int, array: AnyArray, *, base: str) -> None:
        """Let a node read another constant.

        An initializer that nothing else reads is overwritten and keeps its name and place;
        otherwise a new one is made, called `base` if that name is free.
        """
        name = node.input[index] if index < len(node.input) else ""
        tensor = self._initializers.get(name)
        if (
            tensor is not None
            and [id(reader) for reader in self.consumers(name)] == [id(node)]
            and list(node.input).count(name) == 1
            and name not in self._outputs
            and name not in self._constants.optional
            and tuple(tensor.dims) == array.shape
        ):
            doc_string = tensor.doc_string
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), name))
            if doc_string:
                tensor.doc_string = doc_string
        else:
            self.set_input(node, index, self.add_initializer(base, array))

    def set_input(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node read another tensor."""
        self._unregister(node)
        while len(node.input) <= index:
            node.input.append("")
        self._unused.update(dict.fromkeys(filter(None, [node.input[index]])))
        node.input[index] = name
        self._register(node)

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that a node writes another name, wherever it is read."""
        node, readers = self._producers[old], self.consumers(old)
        for each in {id(n): n for n in (node, *readers)}.values():
            self._unregister(each)
            _replace(each, old, new)
            self._register(each)
        self._names.add(new)
        self._gone.add(old)
        self._gone.discard(new)

    def insert_before(self, node: onnx.NodeProto, new: onnx.NodeProto) -> onnx.NodeProto:
        """Put a node in front of another; return it as it is in the graph."""
        position = self._position(node)
        self.graph.node.insert(position, new)
        placed: onnx.NodeProto = self.graph.node[position]
        self._names.update(filter(None, [placed.name, *placed.output]))
        self._register(placed)
        self._gone.difference_update(placed.output)
        return placed

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out of the graph; what it alone needed goes with `remove_dead`."""
        position = self._position(node)
        self._forget(node)
        del self.graph.node[position]

    def _forget(self, node: onnx.NodeProto) -> None:
        self._unregister(node)
        self._unused.update(dict.fromkeys(reads(node)))
        self._gone.update(filter(None, node.output))

    def _position(self, node: onnx.NodeProto) -> int:
        return next(i for i, other in enumerate(self.graph.node) if other is node)

    def replace(self, node: onnx.NodeProto, builder: SubgraphBuilder) -> None:
        """Put a builder in a node's place: from the node's first input to its first output."""
        exported = builder.export()
        for each in exported.node:
            carry_notes(node, each)
        names = {exported.input[0].name: node.input[0], exported.output[0].name: node.output[0]}
        for tensor in exported.initializer:
            value = np.asarray(numpy_helper.to_array(tensor))
            names[tensor.name] = self.add_initializer(tensor.name, value)
        for each in exported.node:
            for name in each.output:
                if name not in names:
                    names[name] = self.unique_name(name)
            each.input[:] = [names[name] if name else "" for name in each.input]
            each.output[:] = [names[name] if name else "" for name in each.output]
            each.name = self.unique_name(each.name)
        position = self._position(node)
        self.remove(node)
        for offset, each in enumerate(exported.node):
            self.graph.node.insert(position + offset, each)
            self._register(self.graph.node[position + offset])
            self._gone.difference_update(each.output)

    def remove_dead(self) -> tuple[str, ...]:
        """Remove what edits left without use: nodes, initializers, notes on tensors that are gone.

        What was without use before stays: it is the model's own affair.

        Returns
        -------
        tuple of str
            Names of the nodes and initializers removed, in the order of the graph.
        """
        nodes: dict[int, onnx.NodeProto] = {}
        tensors: set[str] = set()
        pending, self._unused = list(self._unused), {}
        while pending:
            name = pending.pop()
            if self._is_used(name):
                continue
            node = self._producers.get(name)
            if node is not None:
                if not any(self._is_used(output) for output in node.output):
                    nodes[id(node)] = node
                    pending.extend(reads(node))
                    self._forget(node)
            elif self._initializers.pop(name, None) is not None:
                tensors.add(name)
        self._unused = {}
        removed = [node.name or node.output[0] for node in _sweep_nodes(self.graph, nodes)]
        removed += _sweep(self.graph.initializer, tensors)
        gone = {name for name in self._gone if name not in self._producers}
        if tensors:
            _sweep(self.graph.input, tensors)
        if gone | tensors:
            _sweep(self.graph.value_info, gone | tensors)
            self._sweep_annotations(gone | tensors)
        self._gone = set()
        return tuple(removed)

    def _is_used(self, name: str) -> bool:
        return bool(self._consumers.get(name)) or name in self._outputs

    def _sweep_annotations(self, names: set[str]) -> None:
        notes = self.graph.quantization_annotation
        for index in reversed(range(len(notes))):
            if notes[index].tensor_name in names:
                del notes[index]


def carry_notes(source: onnx.NodeProto, target: onnx.NodeProto) -> None:
    """Give a node the doc string and metadata of one that it replaces, where it has none."""
    if source.doc_string and not target.doc_string:
        target.doc_string = source.doc_string
    known = {each.key for each in target.metadata_props}
    target.metadata_props.extend(each for each in source.metadata_props if each.key not in known)


def opset_version(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators; 1 where the model, of an old IR, has none."""
    versions = (o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS)
    return int(next(versions, 1))


def _sweep(field: Any, names: set[str]) -> list[str]:
    """Delete what has one of these names from a repeated field; return the names in order."""
    found = [index for index, each in enumerate(field) if each.name in names]
    removed = [str(field[index].name) for index in found]
    for index in reversed(found):
        del field[index]
    return removed


def _sweep_nodes(graph: onnx.GraphProto, nodes: dict[int, onnx.NodeProto]) -> list[onnx.NodeProto]:
    found = [(index, node) for index, node in enumerate(graph.node) if id(node) in nodes]
    for index, _ in reversed(found):
        del graph.node[index]
    return [node for _, node in found]


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every name in a graph and its bodies, of tensors that are only noted too."""
    values: Iterable[Any] = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for value in values:
        yield value.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield node.name
        yield from node.output
        for _, body in bodies(node):
            yield from all_names(body)


def reads(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node reads, those of outer tensors read in its bodies included."""
    names = [name for name in node.input if name]
    for _, body in bodies(node):
        own = {value.name for value in body.input} | {t.name for t in body.initializer}
        own |= {sparse.values.name for sparse in body.sparse_initializer}
        own |= {name for inner in body.node for name in inner.output}
        used = [name for inner in body.node for name in reads(inner)]
        names += [n for n in [*used, *(value.name for value in body.output)] if n not in own]
    return names


def _replace(node: onnx.NodeProto, old: str, new: str) -> None:
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            if name == old:
                field[index] = new
    for _, body in bodies(node):
        for value in body.output:
            if value.name == old:
                value.name = new
        for inner in body.node:
            _replace(inner, old, new)
