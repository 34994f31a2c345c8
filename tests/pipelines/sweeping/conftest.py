"""A small trained-like network and data for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Convs with BatchNormalization behind the first, and a Gemm: 10 classes of 3x12x12."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.standard_normal((16, 3, 5, 5)) / 9,
        "b1": rng.standard_normal(16) / 4,
        "scale": 1 + rng.random(16),
        "shift": rng.standard_normal(16) / 4,
        "mean": rng.standard_normal(16) / 4,
        "variance": 0.5 + rng.random(16),
        "w2": rng.standard_normal((24, 16, 3, 3)) / 12,
        "w3": rng.standard_normal((24 * 9, 10)) / 15,
        "b3": rng.standard_normal(10) / 4,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["y1"], "conv1", strides=[2, 2], pads=[2] * 4),
        helper.make_node(
            "BatchNormalization", ["y1", "scale", "shift", "mean", "variance"], ["n1"], "norm"
        ),
        helper.make_node("Relu", ["n1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["y2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y2"], ["a2"]),
        helper.make_node("MaxPool", ["a2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 12, 12])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(model, path)
    return path


def images(count: int, seed: int) -> np.ndarray:
    """Images whose neighbouring pixels and channels resemble each other, with a mean."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, 3, 12, 12))
    mixed = np.einsum("cd,ndhw->nchw", np.eye(3) + 0.7, noise)
    smooth = np.cumsum(np.cumsum(mixed, axis=2), axis=3) / 12
    return (0.3 + smooth).astype(np.float32)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Held-out samples with labels, and calibration samples."""
    folder = tmp_path_factory.mktemp("data")
    labels = np.random.default_rng(5).integers(0, 10, 24)
    np.savez(folder / "held_out.npz", x=images(24, 2), labels=labels)
    np.savez(folder / "calibration.npz", x=images(40, 3))
    return folder / "held_out.npz", folder / "calibration.npz"
