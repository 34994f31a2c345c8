"""Statistics corrected without training: every output's mean and deviation as the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_lowrank.data import Dataset
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.fitting.statistics.collect import open_with_outputs
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.runtime import Provider
from onnx_lowrank.types import Array, Progress, silent

_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Correction:
    """What was changed at one tensor, or why nothing was.

    Attributes
    ----------
    tensor : str
        A layer's output, or the input of a BatchNormalization.
    shift, scale : float
        Root mean squares over the channels of the change of the mean, in deviations of the
        original, and of the logarithm of the factor.
    reason : str or None
        Why it stayed as it was.
    """

    tensor: str
    shift: float = 0.0
    scale: float = 0.0
    reason: str | None = None


def correct(
    original: onnx.ModelProto,
    compressed: onnx.ModelProto,
    dataset: Dataset,
    *,
    provider: Provider = "cpu",
    progress: Progress = silent,
) -> list[Correction]:
    """Correct biases, and what BatchNormalization subtracts and divides by, in place.

    From the input to the output, each tensor measured in the model as corrected so far:

    1. A layer that depends on a replaced one, and whose output has the same name in both models:
       its weights are scaled and its bias shifted so that each channel has the original's
       deviation and mean over the data. Means alone would do harm: a sum that lost half of its
       deviation is mostly on one side of the ReLU behind it.
    2. A BatchNormalization of the same output in both, behind anything but such a layer: its
       stored mean and variance change instead.

    Biases are added where there are none. Not corrected, with a reason: a layer whose bias has no
    place (a MatMul without an Add), and one whose outputs come in another order.

    Parameters
    ----------
    original, compressed : onnx.ModelProto
        The model, and one that `compress` made of it, which is changed.
    dataset : Dataset
        Images.
    provider : {"cpu", "cuda"}
        Where the models run.
    progress : callable
        Called with a sentence, the number of tensors done, and their total.

    Returns
    -------
    list of Correction
        In the order of the graph.

    Raises
    ------
    ModelError
        No layer depends on a weight that the original lacks.
    DataError
        A statistic is not finite, or what the data set raises.
    """
    sites = _sites(original, compressed)
    if not sites:
        raise ModelError(
            "the compressed model has no weight that the original lacks; give the original first, "
            "then a model made from it by compress"
        )
    expected = _moments(original, dataset, sites, provider)
    done = []
    for index, (tensor, output) in enumerate(sites.items()):
        progress(f"correcting {tensor}", index, len(sites))
        found = _moments(compressed, dataset, {tensor: output}, provider)[tensor]
        done.append(_correct(compressed, tensor, output, expected[tensor], found))
    return done


def _sites(original: onnx.ModelProto, compressed: onnx.ModelProto) -> dict[str, str]:
    """Return the tensors to measure, each with the output of the node to correct."""
    old = {tensor.name for tensor in original.graph.initializer}
    new = {tensor.name for tensor in compressed.graph.initializer} - old
    dependent = set(new)
    for node in compressed.graph.node:
        if dependent.intersection(node.input):
            dependent.update(node.output)
    made = {name: node for node in compressed.graph.node for name in node.output}
    sites = {}
    editor = GraphEditor(original)
    for node in original.graph.node:
        output = node.output[0] if node.output else ""
        if is_op(node, "MatMul"):  # its bias is an Add behind it
            readers = editor.consumers(output)
            if len(readers) == 1 and is_op(readers[0], "Add"):
                output = readers[0].output[0]
        if output not in dependent or output not in made:
            continue
        twin = made[output]
        if not all(is_op(each, "BatchNormalization") for each in (node, twin)):
            # One that was folded into a layer is that layer's output.
            if is_op(node, *_LAYERS, "BatchNormalization"):
                sites[output] = output
        elif node.input[0] == twin.input[0] and node.input[0] not in sites:
            sites[node.input[0]] = output
    return sites


def _moments(
    model: onnx.ModelProto, dataset: Dataset, sites: dict[str, str], provider: Provider
) -> dict[str, tuple[Array, Array]]:
    """Return mean and variance of tensors by channel."""
    session = open_with_outputs(model, set(sites), provider, None)
    sums: dict[str, list[Any]] = {name: [0, 0.0, 0.0] for name in sites}
    for batch in dataset:
        found = batch.without_copies(session.run(batch.feeds, list(sites)))
        for name, value in found.items():
            # Images x channels x positions; a fully connected layer has its channels last.
            axis = 1 if value.ndim == 4 or value.ndim == 2 else value.ndim - 1
            rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
            if not np.isfinite(rows).all():
                raise DataError(
                    f"NaN or Inf in tensor '{name}'; check the preprocessing, and the models on "
                    "these inputs"
                )
            total = sums[name]
            total[0] += rows.shape[1]
            total[1] = total[1] + rows.sum(axis=1, dtype=np.float64)
            total[2] = total[2] + np.square(rows, dtype=np.float64).sum(axis=1)
    return {
        name: (first / count, np.maximum(second / count - (first / count) ** 2, 0.0))
        for name, (count, first, second) in sums.items()
    }


def _correct(
    model: onnx.ModelProto,
    tensor: str,
    output: str,
    expected: tuple[Array, Array],
    found: tuple[Array, Array],
) -> Correction:
    editor = GraphEditor(model)
    node = editor.producer(output)
    assert node is not None  # a site is made by a node
    shift = expected[0] - found[0]
    alive = (expected[1] > 0) & (found[1] > 0)
    ratio = np.sqrt(np.divide(expected[1], found[1], out=np.ones_like(shift), where=alive))
    told = Correction(
        tensor,
        float(np.sqrt(np.mean(np.divide(shift**2, expected[1], out=0 * shift, where=alive)))),
        float(np.sqrt(np.mean(np.log(ratio) ** 2))),
    )
    if is_op(node, "BatchNormalization"):
        mean, variance = (editor.constant(name) for name in node.input[3:5])
        if mean is None or variance is None:
            return Correction(tensor, reason="its statistics are not constant")
        # What it subtracts and divides by, so that (x - mean) / deviation is as it was.
        epsilon = attribute(node, "epsilon", 1e-5)
        _write(editor, node, 3, found[0] - (expected[0] - mean) / ratio)
        _write(editor, node, 4, np.maximum((variance + epsilon) / ratio**2 - epsilon, 0.0))
        return told
    reason = _rescale(editor, node, ratio, expected[0] - ratio * found[0])
    return told if reason is None else Correction(tensor, reason=reason)


def _rescale(editor: GraphEditor, node: onnx.NodeProto, factor: Array, offset: Array) -> str | None:
    """Let a node's output be ``factor y + offset`` by channel; return why it cannot, if so."""
    if is_op(node, "Gather") and attribute(node, "axis", 0) == 1:
        order, below = editor.constant(node.input[1]), editor.producer(node.input[0])
        if order is None or below is None or sorted(order.tolist()) != list(range(len(factor))):
            return "its outputs are gathered"
        back = np.argsort(order)
        return _rescale(editor, below, factor[back], offset[back])
    layer, slot, scale = node, 2, 1.0
    if is_op(node, "Add"):
        slot = next((i for i in (0, 1) if editor.constant(node.input[i]) is not None), 0)
        below = editor.producer(node.input[1 - slot])
        if below is None or not is_op(below, "MatMul"):
            return "what it adds to is no MatMul"
        layer = below
    elif is_op(node, "Gemm"):
        scale = attribute(node, "beta", 1.0)
    elif not is_op(node, "Conv"):
        return f"a {node.op_type} has no bias"
    named = len(node.input) > slot and bool(node.input[slot])
    bias = editor.constant(node.input[slot]) if named else np.zeros(len(factor), np.float32)
    weight = editor.constant(layer.input[1]) if is_op(layer, *_LAYERS) else None
    if bias is None or weight is None or bias.size != factor.size or scale == 0:
        return "its weight and bias are not constants, one value a channel"
    rows = is_op(layer, "Conv") or bool(attribute(layer, "transB", 0))
    _write(
        editor,
        layer,
        1,
        weight * (factor.reshape(-1, *(1,) * (weight.ndim - 1)) if rows else factor),
    )
    value = bias.reshape(-1) * factor + offset / scale
    _write(editor, node, slot, value.reshape(bias.shape))
    return None


def _write(editor: GraphEditor, node: onnx.NodeProto, index: int, value: NDArray[Any]) -> None:
    name = node.input[index] if index < len(node.input) else ""
    old = editor.constant(name) if name else None
    dtype = np.float32 if old is None else old.dtype
    base = name or f"{node.name or node.output[0]}.bias"
    editor.set_constant(node, index, value.astype(dtype), base=base)
