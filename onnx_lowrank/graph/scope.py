"""What is constant in a graph, a body or a function, and where its numbers are stored."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import onnx

from onnx_lowrank.graph.attributes import attribute
from onnx_lowrank.graph.constants import is_random, value_inputs
from onnx_lowrank.graph.edit import reads
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.without_weights import bodies, tensor_bytes
from onnx_lowrank.storage import StoredTensor, StoredWeight

# They give the numbers of their first input, in another order, shape or type.
_SAME_NUMBERS = {
    *("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"),
    *("Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"),
}
_VALUES = ("value", "sparse_value", "value_ints", "value_floats", "value_int", "value_float")


class Scope:
    """The tensors that nodes of one graph, body or function can read.

    Parameters
    ----------
    nodes : sequence of NodeProto
        In any order.
    inputs : collection of str
        What varies from call to call.
    tensors : collection of TensorProto
        Initializers.
    sparse : collection of SparseTensorProto
        Initializers too.
    outputs : collection of str
        What is read outside.
    parent : Scope, optional
        Of the graph around a body.
    place : str
        In front of names of tensors that are stored here, with a slash.
    """

    def __init__(
        self,
        nodes: Sequence[onnx.NodeProto],
        *,
        inputs: Collection[str],
        tensors: Iterable[onnx.TensorProto] = (),
        sparse: Iterable[onnx.SparseTensorProto] = (),
        outputs: Collection[str] = (),
        parent: Scope | None = None,
        place: str = "",
    ) -> None:
        self.parent = parent
        self.place = place
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._sparse = {each.values.name: each for each in sparse}
        self._outputs = set(outputs)
        self._producers = {name: node for node in nodes for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in dict.fromkeys(_values_of(node)):
                self._consumers.setdefault(name, []).append(node)
        self._inputs = set(inputs) - set(self._tensors)
        self._varying = self._find_varying(nodes)
        self.weight_inputs: set[tuple[int, str]] = set()
        """Pairs of a layer's node (its id) and a weight that it reads: see `stored`."""

    @classmethod
    def of_graph(
        cls, graph: onnx.GraphProto, *, parent: Scope | None = None, place: str = ""
    ) -> Scope:
        """Return the scope of the main graph, or of a body inside `parent`."""
        return cls(
            graph.node,
            inputs=[value.name for value in graph.input],
            tensors=graph.initializer,
            sparse=graph.sparse_initializer,
            outputs=[value.name for value in graph.output],
            parent=parent,
            place=place,
        )

    def _find_varying(self, nodes: Sequence[onnx.NodeProto]) -> set[str]:
        varying = set(self._inputs)
        pending = list(varying)
        for node in nodes:
            outer = [name for name in _values_of(node) if not self._is_here(name)]
            if is_random(node) or any(not self._is_outer_constant(name) for name in outer):
                pending.extend(filter(None, node.output))
        while pending:
            name = pending.pop()
            varying.add(name)
            for node in self._consumers.get(name, ()):
                pending.extend(out for out in node.output if out and out not in varying)
        return varying

    def _is_here(self, name: str) -> bool:
        return name in self._producers or self._is_stored(name) or name in self._inputs

    def _is_stored(self, name: str) -> bool:
        return name in self._tensors or name in self._sparse

    def _is_outer_constant(self, name: str) -> bool:
        return self.parent is not None and self.parent.is_constant(name)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor depends on no input, whether or not its value can be computed here."""
        if not name or name in self._varying:
            return False
        return self._is_here(name) or self._is_outer_constant(name)

    def sparse(self, name: str) -> tuple[int, ...] | None:
        """Return the dimensions of a tensor that is stored sparsely, or None."""
        if name in self._sparse:
            return tuple(self._sparse[name].dims)
        node = self._producers.get(name)
        if node is not None and is_op(node, "Constant"):
            value = attribute(node, "sparse_value", None)
            return None if value is None else tuple(value.dims)
        outer = self.parent is not None and not self._is_here(name)
        return self.parent.sparse(name) if outer and self.parent is not None else None

    def stored(self, name: str, shape: Sequence[Any] | None = None) -> StoredWeight | None:
        """Return where a constant's numbers are stored.

        What reads a tensor counts as a layer where `weight_inputs` has the pair.

        Parameters
        ----------
        name : str
            Of a tensor.
        shape : sequence of int, optional
            Its shape, where that is known.

        Returns
        -------
        StoredWeight or None
            None where it is not constant, or its size is unknown.
        """
        if not self.is_constant(name):
            return None
        if not self._is_here(name):
            assert self.parent is not None
            return self.parent.stored(name, shape)
        key = self._numbers(name)
        if not self._is_here(key):
            return self.parent.stored(key, shape) if self.parent is not None else None
        params = self._count(key)
        if params is None and shape is not None and all(isinstance(size, int) for size in shape):
            params = math.prod(shape)
        if params is None:
            return None
        tensors = [self._leaf(leaf) for leaf in self._leaves(name)]
        return StoredWeight(self.place + key, params, tuple(t for t in tensors if t is not None))

    def _numbers(self, name: str) -> str:
        """Return the tensor that has the numbers of another: before its transposition, say."""
        seen = set()
        while (node := self._producers.get(name)) is not None and name not in seen:
            seen.add(name)
            same = any(is_op(node, *_SAME_NUMBERS, domain=d) for d in ("", "com.microsoft"))
            if not same or not node.input:
                break
            name = node.input[0]
        return name

    def _leaves(self, name: str) -> list[str]:
        found: dict[str, None] = {}
        pending, seen = [name], {name}
        while pending:
            each = pending.pop()
            node = self._producers.get(each)
            inputs = [] if node is None else _values_of(node)
            if not inputs:
                found[each] = None
            new = [i for i in inputs if i not in seen]
            seen.update(new)
            pending.extend(new)
        return list(found)

    def _leaf(self, name: str) -> StoredTensor | None:
        if not self._is_here(name):
            outer = None if self.parent is None else self.parent.stored(name)
            return outer.tensors[0] if outer is not None and outer.tensors else None
        return StoredTensor(self.place + name, self._bytes(name), self._is_read_elsewhere(name))

    def _constant_value(self, name: str) -> Any:
        node = self._producers.get(name)
        if node is None or not is_op(node, "Constant"):
            return None
        values = (attribute(node, each, None) for each in _VALUES)
        return next((value for value in values if value is not None), None)

    def _count(self, name: str) -> int | None:
        value = self._tensors.get(name) or self._sparse.get(name) or self._constant_value(name)
        if isinstance(value, onnx.TensorProto):
            return int(math.prod(value.dims))
        if isinstance(value, onnx.SparseTensorProto):
            return int(math.prod(value.values.dims))
        return len(value) if isinstance(value, list) else None if value is None else 1

    def _bytes(self, name: str) -> int:
        value = self._tensors.get(name) or self._sparse.get(name) or self._constant_value(name)
        if isinstance(value, onnx.TensorProto):
            return tensor_bytes(value)
        if isinstance(value, onnx.SparseTensorProto):
            return tensor_bytes(value.values) + tensor_bytes(value.indices)
        width = 4 if any(isinstance(v, float) for v in _as_list(value)) else 8
        return width * len(_as_list(value))

    def _is_read_elsewhere(self, name: str) -> bool:
        """Whether a constant reaches anything but the weights of layers."""
        pending, seen = [name], {name}
        while pending:
            each = pending.pop()
            if each in self._outputs:
                return True
            for node in self._consumers.get(each, ()):
                if (id(node), each) in self.weight_inputs:
                    continue
                outputs = [out for out in node.output if out]
                if any(out in self._varying for out in outputs):
                    return True
                new = [out for out in outputs if out not in seen]
                seen.update(new)
                pending.extend(new)
        return False


def _values_of(node: onnx.NodeProto) -> list[str]:
    """Return what a node's outputs depend on by value, what its bodies read from outside too."""
    return value_inputs(node) if not any(True for _ in bodies(node)) else reads(node)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
