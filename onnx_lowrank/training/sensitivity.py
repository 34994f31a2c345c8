"""How much each weight of a classifier matters: squared gradients of its softmax output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.nn import functional

from onnx_lowrank.data import Batch, Dataset
from onnx_lowrank.data.dataset import batched_inputs, rows_of
from onnx_lowrank.errors import DataError, PlanError, suggest
from onnx_lowrank.graph.layers import Layer, attribute, find_layers
from onnx_lowrank.training.check import check_forward
from onnx_lowrank.training.classes import class_output, class_scores, score_tensor
from onnx_lowrank.training.executor import Network
from onnx_lowrank.types import Feeds, Progress, silent

WRONG_LABELS = 3  # as Denton et al. took


def squared_gradients(
    model: onnx.ModelProto,
    dataset: Dataset,
    layers: Sequence[str],
    *,
    wrong_labels: int = WRONG_LABELS,
    progress: Progress = silent,
) -> dict[str, NDArray[np.float64]]:
    """Return the mean over the data of the squared gradient by each weight.

    For every image and each of its most probable wrong labels l, the gradient is that of
    ``-log p(l)``, whose derivative by the scores is the softmax output minus the one-hot of l
    (Denton et al. 2014, section 3.1). Where an image has no label, the most probable class counts
    as right. Images are taken one by one: memory does not grow with their number.

    Parameters
    ----------
    model : onnx.ModelProto
        A classifier, the weights of the layers among its initializers; not changed.
    dataset : Dataset
        Images for its inputs.
    layers : sequence of str
        Names of layers, as `find_layers` gives them.
    wrong_labels : int
        How many wrong labels of an image are looked at.
    progress : callable
        Called with a sentence, the number of images done, and their total or 0.

    Returns
    -------
    dict
        By layer name; float64, of the shape of the layer's weight, ``(F, C / group, *kernel)``.

    Raises
    ------
    PlanError
        A layer is unknown.
    ModelError
        The model has an op that is not computed in torch, differs from onnxruntime there, or is no
        classifier.
    DataError
        A gradient is not finite, or what the data set raises.
    """
    found = {layer.name: layer for layer in find_layers(model)}
    for name in layers:
        if name not in found:
            raise PlanError(f"no layer is called '{name}'{suggest(name, found)}")
    weights = list(dict.fromkeys(found[name].weight for name in layers))
    network, scores = Network(model, trainable=weights), ""
    tensors = [network.weights[name] for name in weights]
    sums = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in tensors]
    count = 0
    for images, (feeds, label) in enumerate(_images(dataset)):
        if not images:
            check_forward(network, model, feeds)
            with torch.no_grad():
                outputs = network.run(feeds, network.outputs)
            scores = score_tensor(model, class_output(outputs, rows_of(dataset.inputs, feeds)))
        progress("gradients of the softmax output", images, dataset.samples or 0)
        logs = functional.log_softmax(class_scores(network.run(feeds, [scores])[scores])[0], dim=0)
        wrong = _wrong(logs.detach(), label, wrong_labels)
        for index, each in enumerate(wrong):
            more = index + 1 < len(wrong)
            gradients = torch.autograd.grad(-logs[each], tensors, retain_graph=more)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient.double() ** 2
        count += len(wrong)
    means = dict(zip(weights, (np.asarray(total) / count for total in sums), strict=True))
    for name, value in means.items():
        if not np.isfinite(value).all():
            raise DataError(
                f"the gradient by '{name}' is not finite; check the preprocessing, and the model "
                "on these inputs"
            )
    return {name: _as_layer(found[name], means[found[name].weight]) for name in layers}


def _wrong(logs: torch.Tensor, label: int | None, most: int) -> list[int]:
    """Return the most probable labels but the right one, the most probable first."""
    order = logs.argsort(descending=True, stable=True).tolist()
    right = order[0] if label is None else label
    if right not in order:
        raise DataError(f"label {right} is not one of {len(order)} classes; check the labels")
    return [each for each in order if each != right][:most]


def _images(dataset: Dataset) -> Iterator[tuple[Feeds, int | None]]:
    """Yield the feeds of single images; where the model fixes its batch, as often as it takes."""
    batched = batched_inputs(dataset.inputs)
    fixed = {i.name: i.shape[0] for i in dataset.inputs if i.shape and isinstance(i.shape[0], int)}
    for batch in dataset:
        for row in range(batch.samples):
            label = None if batch.labels is None else int(batch.labels[row])
            yield _one(batch, row, batched, fixed), label


def _one(batch: Batch, row: int, batched: Mapping[str, bool], fixed: Mapping[str, int]) -> Feeds:
    feeds = dict(batch.feeds)
    for name in filter(batched.__getitem__, batch.feeds):
        feeds[name] = np.repeat(feeds[name][row : row + 1], fixed.get(name, 1), axis=0)
    return feeds


def _as_layer(layer: Layer, squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squares by an initializer as those by the layer's weight, as `layer_weight` has it."""
    if layer.op == "Conv":
        return squares
    if layer.op == "Gemm":
        # The layer's weight is alpha times the initializer.
        squares = squares / attribute(layer.node, "alpha", 1.0) ** 2
        if attribute(layer.node, "transB", 0):
            return squares
    return np.array(squares.T, order="C")
