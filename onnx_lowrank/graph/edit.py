"""Editing of a ModelProto in place: what is not touched stays byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_lowrank.graph.fragment import Fragment

Array = NDArray[Any]


class GraphEditor:
    """Reads and changes the main graph of a model.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; edited in place.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self._opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self._initializers = {t.name: t for t in self.graph.initializer}
        self._outputs = {value.name for value in self.graph.output}
        self._values: dict[str, Array | None] = {}
        self._touched: set[str] = set()
        self._index()

    def _index(self) -> None:
        self._producers: dict[str, onnx.NodeProto] = {}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        self._names = set(self._initializers) | {v.name for v in self.graph.input} | self._outputs
        for node in self.graph.node:
            self._register(node)

    def _register(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if name:
                self._producers[name] = node
                self._names.add(name)
        self._names.add(node.name)
        for name in dict.fromkeys(_reads(node)):
            self._consumers.setdefault(name, []).append(node)

    def _unregister(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            self._producers.pop(name, None)
        for name in dict.fromkeys(_reads(node)):
            self._consumers[name] = [n for n in self._consumers[name] if n is not node]

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

    def constant(self, name: str) -> Array | None:
        """Return the value of a tensor that does not depend on the model's inputs, or None."""
        if name not in self._values:
            self._values[name] = self._evaluate(name)
        return self._values[name]

    def _evaluate(self, name: str) -> Array | None:
        if name in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[name]))
        node = self._producers.get(name)
        if node is None or node.domain not in ("", "ai.onnx") or any(True for _ in _bodies(node)):
            return None
        inputs = [None if not i else self.constant(i) for i in node.input]
        if any(v is None and i for v, i in zip(inputs, node.input, strict=True)):
            return None
        if node.op_type.startswith(("Random", "Multinomial", "Bernoulli")):
            return None
        return self._compute(node, name, [v for v in inputs if v is not None])

    def _compute(self, node: onnx.NodeProto, name: str, inputs: list[Array]) -> Array | None:
        from onnx.reference import ReferenceEvaluator

        names = [i for i in node.input if i]
        graph = helper.make_graph(
            [node],
            "constant",
            [helper.make_value_info(i, onnx.TypeProto()) for i in dict.fromkeys(names)],
            [helper.make_value_info(name, onnx.TypeProto())],
        )
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        result = ReferenceEvaluator(model).run([name], dict(zip(names, inputs, strict=True)))
        return np.asarray(result[0])

    # Changing

    def unique_name(self, base: str) -> str:
        """Return `base`, with a number behind it if something has that name already."""
        name, number = base, 1
        while name in self._names:
            name, number = f"{base}_{number}", number + 1
        self._names.add(name)
        return name

    def add_initializer(self, base: str, array: Array) -> str:
        """Add a constant and return its name; below IR 4 it is listed as an input, as that IR demands."""
        name = self.unique_name(base)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.graph.initializer.append(tensor)
        self._initializers[name] = self.graph.initializer[-1]
        if self.model.ir_version < 4:
            self.graph.input.append(
                helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            )
        return name

    def set_input(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node read another tensor."""
        self._unregister(node)
        self._touched.update(n for n in node.input if n)
        while len(node.input) <= index:
            node.input.append("")
        node.input[index] = name
        self._register(node)

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that a node writes another name, wherever it is read."""
        node, readers = self._producers[old], self.consumers(old)
        for each in {id(n): n for n in (node, *readers)}.values():
            self._unregister(each)
            _replace(each, old, new)
            self._register(each)

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out of the graph; what it alone needed goes with `remove_dead`."""
        self._unregister(node)
        self._touched.update(n for n in node.input if n)
        for index, other in enumerate(self.graph.node):
            if other is node:
                del self.graph.node[index]
                return

    def replace(self, node: onnx.NodeProto, fragment: Fragment) -> None:
        """Put a fragment in a node's place: it reads the node's first input and writes its first output."""
        exported = fragment.export()
        names = {exported.input[0].name: node.input[0], exported.output[0].name: node.output[0]}
        for tensor in exported.initializer:
            names[tensor.name] = self.add_initializer(
                tensor.name, np.asarray(numpy_helper.to_array(tensor))
            )
        position = next(i for i, other in enumerate(self.graph.node) if other is node)
        self.remove(node)
        for offset, new in enumerate(exported.node):
            for name in new.output:
                names.setdefault(name, self.unique_name(name))
            for field in (new.input, new.output):
                field[:] = [names[name] if name else "" for name in field]
            new.name = self.unique_name(new.name)
            self.graph.node.insert(position + offset, new)
            self._register(self.graph.node[position + offset])

    def remove_dead(self) -> tuple[str, ...]:
        """Remove nodes and initializers that our edits left without use; return their names.

        What was without use before stays: it is the model's own affair.
        """
        removed = []
        pending = list(self._touched)
        while pending:
            name = pending.pop()
            if self._consumers.get(name) or name in self._outputs:
                continue
            node = self._producers.get(name)
            if node is not None:
                if any(self._consumers.get(o) or o in self._outputs for o in node.output):
                    continue
                pending.extend(i for i in node.input if i)
                removed.append(node.name or name)
                self.remove(node)
            elif name in self._initializers:
                self.graph.initializer.remove(self._initializers.pop(name))
                removed.append(name)
                for value in self.graph.input:
                    if value.name == name:
                        self.graph.input.remove(value)
                        break
        self._touched.clear()
        return tuple(removed)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those of outer tensors read in its bodies included."""
    names = [name for name in node.input if name]
    for body in _bodies(node):
        own = {v.name for v in body.input} | {t.name for t in body.initializer}
        own |= {name for inner in body.node for name in inner.output}
        used = [name for inner in body.node for name in _reads(inner)]
        names += [n for n in [*used, *(v.name for v in body.output)] if n not in own]
    return names


def _replace(node: onnx.NodeProto, old: str, new: str) -> None:
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            if name == old:
                field[index] = new
    for body in _bodies(node):
        for inner in body.node:
            _replace(inner, old, new)
