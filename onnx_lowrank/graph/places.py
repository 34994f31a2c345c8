"""Which nodes of a model multiply by weights, and where in the model they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from onnx_lowrank.graph.check import Shape, infer_shapes
from onnx_lowrank.graph.counterparts import shapes_for_costs
from onnx_lowrank.graph.foreign_layers import ForeignOp, foreign_op
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.graph.portable_layers import DOMAIN
from onnx_lowrank.graph.scope import Scope
from onnx_lowrank.graph.specs import sizes_of
from onnx_lowrank.graph.without_weights import bodies
from onnx_lowrank.storage import StoredWeight


@dataclass(frozen=True, eq=False)
class Place:
    """A node that is a layer.

    Attributes
    ----------
    name : str
        What the layer is called.
    node : onnx.NodeProto
        The node.
    scope : Scope
        What it can read.
    shapes, cost_shapes : mapping of str to Shape
        Of tensors around it: as they certainly are, and good for costs alone; empty inside bodies
        and functions.
    op : ForeignOp or None
        None for a Conv, Gemm or MatMul of the standard domain with its weight on the right.
    where : str or None
        In a sentence, the body or function it is in; None for one in the main graph.
    calls : tuple of NodeProto
        Of the main graph, to the function that it is in.
    formals : tuple of str
        Inputs of that function.
    """

    name: str
    node: onnx.NodeProto
    scope: Scope
    shapes: Mapping[str, Shape]
    op: ForeignOp | None
    where: str | None = None
    calls: tuple[onnx.NodeProto, ...] = ()
    formals: tuple[str, ...] = ()
    cost_shapes: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def indices(self) -> tuple[int, ...]:
        """Which inputs are weights; of two operands of a product only those that are constant."""
        inputs = self.node.input
        wanted = (1,) if self.op is None else self.op.weights
        found = tuple(index for index in wanted if index < len(inputs) and inputs[index])
        if self.op is None or not self.op.product:
            return found
        return tuple(index for index in found if self.scope.is_constant(inputs[index]))

    def stored(self) -> tuple[StoredWeight, ...] | None:
        """Return where its weights are stored; None where that is unknown."""
        found: list[StoredWeight | None] = []
        for index in self.indices:
            name = self.node.input[index]
            if self.scope.is_constant(name):
                found.append(self.scope.stored(name, self.shapes.get(name)))
            elif name in self.formals:
                found += [self._given(call, self.formals.index(name)) for call in self.calls]
            elif self.formals:
                found.append(None)
        # Calls that give a function the same weight are one weight.
        known = list(dict.fromkeys(weight for weight in found if weight is not None))
        if None in found or (self.formals and not found):
            return None
        packed = self.op.packed if self.op is not None else None
        if packed is not None and known:
            tensors = tuple(tensor for weight in known for tensor in weight.tensors)
            params = packed(self.node)
            return None if params is None else (StoredWeight(known[0].key, params, tensors),)
        return tuple(known)

    def _given(self, call: onnx.NodeProto, index: int) -> StoredWeight | None:
        main = self.scope.parent
        if main is None or index >= len(call.input):
            return None
        return main.stored(call.input[index])

    def cost(self) -> tuple[int | None, int | None]:
        """Return the number of weights and the multiply-adds by them for one image."""
        weights, op = self.stored(), self.op
        if weights is None:
            return None, None
        if op is None or op.packed is not None or len(weights) != len(self.indices):
            params = sum(weight.params for weight in weights) if weights else self._dense()
            once = self._positions(self.indices[0]) if self.indices else None
            return params, None if params is None or once is None else params * once
        macs: int | None = 0
        for index, weight in zip(self.indices, weights, strict=True):
            once = self._positions(index)
            macs = None if macs is None or once is None else macs + weight.params * once
        return sum(weight.params for weight in weights), macs

    def _positions(self, index: int) -> int | None:
        return None if self.op is None else self.op.positions(self.node, self.cost_shapes, index)

    def _dense(self) -> int | None:
        """Return the size of weights that are no constants."""
        shapes = [self.cost_shapes.get(self.node.input[index]) for index in self.indices]
        sizes = [None if shape is None else sizes_of(shape) for shape in shapes]
        return sum(math.prod(s) for s in sizes if s is not None) if None not in sizes else None


def places(
    model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Place, ...]:
    """Return all layers in graph order, each behind those in the bodies before it.

    Nodes of the package's own domain are layers themselves, not what their functions consist of.
    """
    shapes = infer_shapes(model, input_shapes)
    finder = _Finder(model, shapes, shapes_for_costs(model, shapes, input_shapes))
    found = [*finder.main(), *finder.functions()]
    for place in found:
        if place.where is None:
            inputs = (place.node.input[index] for index in place.indices)
            place.scope.weight_inputs.update((id(place.node), name) for name in inputs)
    return tuple(found)


class _Finder:
    def __init__(
        self, model: onnx.ModelProto, shapes: Mapping[str, Shape], costs: Mapping[str, Shape]
    ) -> None:
        self._model = model
        self._shapes = shapes
        self._costs = costs
        self._scope = Scope.of_graph(model.graph)
        self._taken: set[str] = set()
        self._functions = {(f.domain, f.name) for f in model.functions if f.domain != DOMAIN}

    def main(self) -> Iterator[Place]:
        graph = self._model.graph
        found = {}
        for node in graph.node:
            place = self._place(node, self._scope, self._shapes)
            if place is not None:
                name = _unique(self._taken, node.name, _output(node))
                found[id(node)] = replace(place, name=name, cost_shapes=self._costs)
        for node in graph.node:
            if id(node) in found:
                yield found[id(node)]
            outer = node.name or _output(node)
            for branch, body in bodies(node):
                where = f"it is inside the {branch} of {node.op_type} node '{outer}'"
                scope = Scope.of_graph(body, parent=self._scope, place=f"{outer}/{branch}/")
                for place in self._inner(body.node, scope):
                    name = _unique(self._taken, *_candidates(place.node, f"{outer}/{branch}"))
                    yield replace(place, name=name, where=f"{where}; bodies are left alone")

    def functions(self) -> Iterator[Place]:
        for function in self._model.functions:
            if function.domain == DOMAIN:
                continue
            calls = tuple(
                node
                for node in self._model.graph.node
                if is_op(node, function.name, domain=function.domain)
            )
            # What a call gives a constant for is a weight.
            given = [
                name
                for index, name in enumerate(function.input)
                if any(self._scope.is_constant(name) for c in calls for name in c.input[index:][:1])
            ]
            scope = Scope(
                function.node, inputs=function.input, parent=self._scope, place=f"{function.name}/"
            )
            where = f"it is inside the model-local function '{function.name}'"
            for place in self._inner(function.node, scope, given):
                yield replace(
                    place,
                    name=_unique(self._taken, *_candidates(place.node, function.name)),
                    where=f"{where}; functions are left alone",
                    calls=calls,
                    formals=tuple(function.input),
                )

    def _inner(
        self, nodes: Sequence[onnx.NodeProto], scope: Scope, given: Sequence[str] = ()
    ) -> Iterator[Place]:
        """Yield the layers of a body or function, at any depth."""
        for node in nodes:
            place = self._place(node, scope, {}, given)
            if place is not None:
                yield place
            for branch, body in bodies(node):
                inside = f"{scope.place}{node.name or _output(node)}/{branch}/"
                yield from self._inner(
                    body.node, Scope.of_graph(body, parent=scope, place=inside), given
                )

    def _place(
        self,
        node: onnx.NodeProto,
        scope: Scope,
        shapes: Mapping[str, Shape],
        given: Sequence[str] = (),
    ) -> Place | None:
        if (node.domain, node.op_type) in self._functions or not _output(node):
            return None
        if (is_op(node, "Conv") and len(node.input) > 1) or (
            is_op(node, "Gemm", "MatMul") and _has(node, 1, scope, given)
        ):
            return Place("", node, scope, shapes, None)
        op = foreign_op(node, shapes)
        if op is None or (op.product and not any(_has(node, i, scope, given) for i in op.weights)):
            return None
        return Place("", node, scope, shapes, op)


def _has(node: onnx.NodeProto, index: int, scope: Scope, given: Sequence[str]) -> bool:
    name = node.input[index] if index < len(node.input) else ""
    return scope.is_constant(name) or name in given


def _output(node: onnx.NodeProto) -> str:
    return str(next(filter(None, node.output), ""))


def _candidates(node: onnx.NodeProto, place: str) -> tuple[str, ...]:
    return (node.name, _output(node), f"{place}/{node.name or _output(node)}")


def _unique(taken: set[str], *candidates: str) -> str:
    """Return the first name that is not taken, or the last one with a number, and take it."""
    name = next((c for c in candidates if c and c not in taken), "")
    number = 1
    while not name or name in taken:
        name, number = f"{candidates[-1]}_{number}", number + 1
    taken.add(name)
    return name
