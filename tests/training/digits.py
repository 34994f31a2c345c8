"""A small network trained on scikit-learn's digits, which are always there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from builders import run, text_model
from sklearn.datasets import load_digits

NET = """
net (float[N,1,8,8] image) => (float[N,10] probabilities)
{
    [conv1] a1 = Conv<pads=[1,1,1,1]>(image, conv1_w, conv1_b)
    [relu1] a2 = Relu(a1)
    [pool] a3 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a2)
    [conv2] a4 = Conv<pads=[1,1,1,1]>(a3, conv2_w, conv2_b)
    [relu2] a5 = Relu(a4)
    [flat] a6 = Flatten(a5)
    [fc] scores = Gemm<transB=1>(a6, fc_w, fc_b)
    [softmax] probabilities = Softmax(scores)
}
"""
SHAPES = {
    "conv1_w": (16, 1, 3, 3),
    "conv1_b": (16,),
    "conv2_w": (24, 16, 3, 3),
    "conv2_b": (24,),
    "fc_w": (10, 384),
    "fc_b": (10,),
}


def untrained() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:] or (1e12,)))
        for name, shape in SHAPES.items()
    }
    return text_model(NET, {name: value.astype(np.float32) for name, value in weights.items()})


def splits(folder: Path) -> dict[str, Path]:
    """Write train, val and test, and train without labels; return their paths."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    paths = {}
    for name, part in zip(("train", "val", "test"), np.split(order, [1000, 1400]), strict=True):
        paths[name] = folder / f"{name}.npz"
        np.savez(paths[name], image=images[part], labels=labels[part])
        paths[f"{name}-unlabelled"] = folder / f"{name}-unlabelled.npz"
        np.savez(paths[f"{name}-unlabelled"], image=images[part])
    return paths


def trained(data: dict[str, Path]) -> onnx.ModelProto:
    """Train it from scratch with what this package trains factors by; needs torch."""
    import torch

    from onnx_lowrank.data import open_dataset
    from onnx_lowrank.runtime import model_inputs
    from onnx_lowrank.training.executor import Network, write_back
    from onnx_lowrank.training.losses import Loss
    from onnx_lowrank.training.settings import Schedule
    from onnx_lowrank.training.train import train

    torch.set_num_threads(1)
    model = untrained()
    network = Network(model, trainable=list(SHAPES))
    parts = [open_dataset(data[name], model_inputs(model)) for name in ("train", "val")]
    loss = Loss(model, model, "labels", network, next(iter(parts[1])).feeds)
    schedule = Schedule(rate=3e-3, epochs=4, batches=(32,))
    outcome = train([network.weights[name] for name in SHAPES], loss, *parts, schedule)
    write_back(model, dict(zip(SHAPES, outcome.values, strict=True)))
    return model


def accuracy(model: onnx.ModelProto, path: Path) -> float:
    """In onnxruntime."""
    with np.load(path) as arrays:
        (found,) = run(model, {"image": arrays["image"]})
        return float(np.mean(found.argmax(axis=1) == arrays["labels"]))
