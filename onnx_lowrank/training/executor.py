"""A model's graph, computed in torch with its initializers as what is trained."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.inliner import inline_local_functions
from torch.utils.checkpoint import checkpoint

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.edit import opset_version
from onnx_lowrank.graph.ops import standard_op
from onnx_lowrank.training.context import Context
from onnx_lowrank.training.ops import OPS
from onnx_lowrank.training.parts import cut
from onnx_lowrank.training.plain_ops import as_tensor, of_one_output
from onnx_lowrank.types import Feeds

Plan = list[tuple[Context, list[str]]]
"""Nodes in order, each with the tensors that nothing reads after it."""


# onnx2torch converts such networks too, but the way back is lost: it makes a Linear of a Gemm, with
# alpha in its weight, and other weights are onnx_initializer_0 and so on, untrained; it also needs
# torchvision. Forty ops over torch's own functions keep every initializer's name and shape.
class Network:
    """A model in torch.

    Nodes of the model's own functions are computed through their bodies.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    trainable : collection of str
        Initializers whose gradients are wanted.
    dtype : torch.dtype
        What all floating-point numbers are computed in.
    device : str
        Where, as torch names it.
    recompute : bool
        Whether gradients are computed with few of the graph's tensors kept, the others computed a
        second time (Chen et al. 2016): less memory for more time, and the same gradients.

    Attributes
    ----------
    weights : dict of str to torch.Tensor
        The floating-point initializers by name; those that are trainable require gradients.

    Raises
    ------
    ModelError
        The model has an op that is not computed here.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        trainable: Collection[str] = (),
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        recompute: bool = False,
    ) -> None:
        flat = inline_local_functions(model) if model.functions else model
        opset = opset_version(model)
        self.dtype, self.device, self._recompute = dtype, device, recompute
        nodes = [part for node in flat.graph.node for part in of_one_output(node)]
        self._steps = [Context(node, opset, dtype) for node in nodes]
        for step in self._steps:
            if standard_op(step.node) not in OPS:
                raise step.refuse("there is no such op")
        self.weights: dict[str, torch.Tensor] = {}
        self._constants: dict[str, torch.Tensor] = {}
        for tensor in flat.graph.initializer:
            value = as_tensor(numpy_helper.to_array(tensor), dtype)
            if value.is_floating_point():
                value = value.to(device).requires_grad_(tensor.name in trainable)
                self.weights[tensor.name] = value
            else:
                self._constants[tensor.name] = value
        missing = sorted(set(trainable) - set(self.weights))
        if missing:
            raise ModelError(
                f"the model has no floating-point initializer '{missing[0]}'; "
                "train weights that are initializers"
            )
        known = {*self.weights, *self._constants}
        self.inputs = tuple(v.name for v in flat.graph.input if v.name not in known)
        self.outputs = tuple(value.name for value in flat.graph.output)
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._parts: dict[tuple[str, ...], list[Plan]] = {}

    def run(self, feeds: Feeds, wanted: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Compute tensors, with gradients where torch's mode asks for them.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            The model's inputs.
        wanted : sequence of str, optional
            Any tensors of the graph; the model's outputs if not given.

        Raises
        ------
        ModelError
            The graph has no such tensor, or an op of a form that is not computed here.
        """
        names = tuple(self.outputs if wanted is None else wanted)
        values: dict[str, Any] = {**self.weights, **self._constants}
        for name, array in feeds.items():
            value = as_tensor(array, self.dtype).to(self.device)
            if value.dim() == 4:
                # The layout in which Convs and pools are faster on CPUs; it does not change shapes.
                value = value.contiguous(memory_format=torch.channels_last)
            values[name] = value
        plan = self._plan(names)
        if self._recompute and torch.is_grad_enabled():
            if names not in self._parts:
                self._parts[names] = _cut(plan, values)
            *parts, last = self._parts[names]
            for part in parts:
                read = {name for step, _ in part for name in step.node.input if name in values}
                given = {name: values[name] for name in read}
                found = checkpoint(
                    _compute_part, part, given, use_reentrant=False, preserve_rng_state=False
                )
                for name in {name for _, done in part for name in done}:
                    values.pop(name, None)
                values |= found
            plan = last  # its tensors are needed right away
        _compute(plan, values)
        return {name: values[name] for name in names}

    def _plan(self, wanted: tuple[str, ...]) -> Plan:
        """Return the nodes that tensors need, in order, each with what nothing reads after it."""
        if wanted not in self._plans:
            needed: set[str] = set(wanted)
            plan: Plan = []
            read = set(wanted)
            for step in reversed(self._steps):
                if needed.isdisjoint(step.node.output):
                    continue
                if not needed.isdisjoint(step.node.output[1:]):
                    raise step.refuse("more than its first output is used")
                inputs = set(filter(None, step.node.input))
                plan.append((step, sorted(inputs - read)))
                read |= inputs
                needed.difference_update(step.node.output)
                needed |= inputs
            unknown = sorted(needed - {*self.weights, *self._constants, *self.inputs})
            if unknown:
                raise ModelError(f"the model has no tensor '{unknown[0]}'; check its name")
            self._plans[wanted] = plan[::-1]
        return self._plans[wanted]


def _compute(plan: Plan, values: dict[str, Any]) -> None:
    """Compute nodes into `values`, in place."""
    for step, done in plan:
        inputs = [values[name] if name else None for name in step.node.input]
        values[step.node.output[0]] = OPS[standard_op(step.node)](inputs, step)
        for name in done:
            del values[name]


def _compute_part(part: Plan, values: dict[str, Any]) -> dict[str, Any]:
    """Return what nodes of a part make for those after it."""
    inner = dict(values)
    _compute(part, inner)
    made = [step.node.output[0] for step, _ in part]
    return {name: inner[name] for name in made if name in inner}


def _cut(plan: Plan, values: dict[str, Any]) -> list[Plan]:
    """Cut nodes into parts by what they are found to keep for gradients."""
    values = dict(values)
    pointers = {value.untyped_storage().data_ptr() for value in values.values()}
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in pointers:
            found[storage.data_ptr()] = storage.nbytes()

    saved, live = [], []
    made: list[str] = []
    counted: set[str] = set()
    # As nothing is kept here, it takes little more memory than a run without gradients.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda _: torch.empty(0)):
        for step, done in plan:
            names = {name for name in (*step.node.input, step.node.output[0]) if name}
            before = {name: values[name] for name in names if name in values}
            _compute([(step, [])], values)
            tensors = {**before, step.node.output[0]: values[step.node.output[0]]}
            for name, tensor in tensors.items():
                pointer = tensor.untyped_storage().data_ptr()
                if name in counted:
                    found.pop(pointer, None)
                elif pointer in found:
                    counted.add(name)
            saved.append(sum(found.values()))
            found.clear()
            made.append(step.node.output[0])
            for name in done:
                del values[name]
            live.append(sum(values[name].nbytes for name in made if name in values))
    starts = cut(saved, live)
    return [plan[a:b] for a, b in itertools.pairwise(starts)]


def write_back(model: onnx.ModelProto, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Give initializers other values, in place; names, shapes, types and all else stay.

    Raises
    ------
    ValueError
        There is no such initializer, or its shape is another.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in values.items():
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.dims) != value.shape:
            raise ValueError(f"no initializer '{name}' of shape {value.shape}")
        old = numpy_helper.to_array(tensor)
        doc_string = tensor.doc_string
        tensor.CopyFrom(numpy_helper.from_array(value.astype(old.dtype), name))
        if doc_string:
            tensor.doc_string = doc_string
