"""Writes networks as ONNX from trained weights kept in another format.

The formats are only read as arrays: no pickle is loaded and no code of a package runs.
"""

from __future__ import annotations

import importlib
import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from registry import FetchError

Array = npt.NDArray[np.float32]

OPSET = 13
IR_VERSION = 8
INPUT = "image"
OUTPUT = "scores"

# The tensors of the digit recogniser in the order of its storages, which the pinned file numbers.
MNIST = (
    ("conv1.weight", (32, 1, 3, 3)),
    ("conv1.bias", (32,)),
    ("conv2.weight", (64, 32, 3, 3)),
    ("conv2.bias", (64,)),
    ("conv3.weight", (128, 64, 3, 3)),
    ("conv3.bias", (128,)),
    ("fc1.weight", (256, 1152)),
    ("fc1.bias", (256,)),
    ("fc2.weight", (10, 256)),
    ("fc2.bias", (10,)),
)


class Chain:
    """A graph that is one chain of nodes, each reading the one before."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input_shape = input_shape
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.top = INPUT

    def add(
        self, op: str, name: str, parameters: dict[str, Array] | None = None, **attrs: Any
    ) -> None:
        """Append a node whose further inputs are initializers named ``name.key``."""
        inputs = [self.top]
        for key, value in (parameters or {}).items():
            inputs.append(f"{name}.{key}")
            # Keras and torch hand out views; ONNX stores contiguous data.
            self.initializers.append(
                numpy_helper.from_array(np.ascontiguousarray(value), inputs[-1])
            )
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
        self.top = name

    def model(self, name: str, classes: int) -> onnx.ModelProto:
        """Return the model; its output ``scores`` is N x classes."""
        self.nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *self.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", classes])],
            self.initializers,
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def mnist(data: bytes) -> onnx.ModelProto:
    """Return the digit recogniser of the package digit-recognizer-py.

    Three 3x3 Convs, each with a ReLU and a 2x2 max pool, and two fully connected layers. Input
    ``image``: N x 1 x 28 x 28, float32, ``(grey / 255 - 0.1307) / 0.3081``, white digit on black.

    Parameters
    ----------
    data : bytes
        The contents of its ``.pth``: a zip with one file of raw little-endian floats per tensor.

    Raises
    ------
    FetchError
        The file does not hold those tensors.
    """
    weights: dict[str, Array] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for index, (name, shape) in enumerate(MNIST):
            raw = np.frombuffer(archive.read(f"handwriting_model/data/{index}"), "<f4")
            if raw.size != np.prod(shape):
                raise FetchError(f"{name}: has {raw.size} values, expected the shape {shape}")
            weights[name] = raw.reshape(shape)

    def parameters(layer: str) -> dict[str, Array]:
        return {key: weights[f"{layer}.{key}"] for key in ("weight", "bias")}

    chain = Chain((1, 28, 28))
    for index in (1, 2, 3):
        chain.add("Conv", f"conv{index}", parameters(f"conv{index}"), pads=[1, 1, 1, 1])
        chain.add("Relu", f"relu{index}")
        chain.add("MaxPool", f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
    chain.add("Flatten", "flatten")
    chain.add("Gemm", "fc1", parameters("fc1"), transB=1)
    chain.add("Relu", "relu4")
    chain.add("Gemm", "fc2", parameters("fc2"), transB=1)
    return chain.model("mnist", 10)


def cifar10(data: bytes) -> onnx.ModelProto:
    """Return the classifier of the package cifar-10-model.

    Six 3x3 Convs without padding (64, 64, 128, 128, 64, 64), each followed by ReLU and then
    BatchNormalization, and three fully connected layers, the last with a ReLU too. Input ``image``:
    N x 3 x 32 x 32, float32, RGB 0 to 255.

    Parameters
    ----------
    data : bytes
        The contents of its Keras ``.h5`` file.

    Raises
    ------
    FetchError
        h5py is not installed.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise FetchError("cifar10: its weights are an HDF5 file; `pip install h5py`") from error
    with h5py.File(io.BytesIO(data), "r") as file:

        def read(layer: str, index: int, *keys: str) -> list[Array]:
            name = f"{layer}_{index}" if index else layer
            group = file["model_weights"][name][name]
            return [np.asarray(group[f"{key}:0"], np.float32) for key in keys]

        chain = Chain((3, 32, 32))
        for index in range(6):
            kernel, bias = read("conv2d", index, "kernel", "bias")
            # Keras keeps a kernel as height, width, input, output.
            weight = kernel.transpose(3, 2, 0, 1)
            chain.add("Conv", f"conv{index + 1}", {"weight": weight, "bias": bias})
            chain.add("Relu", f"relu{index + 1}")
            keys = ("gamma", "beta", "moving_mean", "moving_variance")
            statistics = dict(zip(keys, read("batch_normalization", index, *keys), strict=True))
            chain.add("BatchNormalization", f"bn{index + 1}", statistics, epsilon=1e-3)
            # The third pool is 1x1, which changes nothing.
            if index in (1, 3):
                chain.add("MaxPool", f"pool{index // 2 + 1}", kernel_shape=[2, 2], strides=[2, 2])
        # What reaches it is 64 x 1 x 1, so the layouts of the two formats flatten alike.
        chain.add("Flatten", "flatten")
        for index in range(3):
            kernel, bias = read("dense", index, "kernel", "bias")
            chain.add("Gemm", f"fc{index + 1}", {"weight": kernel, "bias": bias})
            chain.add("Relu", f"relu{index + 7}")
        return chain.model("cifar10", 10)
