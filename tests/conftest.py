"""Small models that several tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

Build = Callable[..., onnx.ModelProto]

_RESIDUAL = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[{batch},3,32,32] image) => (float[{batch},10] scores)
<int64[2] flat = {{{first},512}}> {{
    [conv1] a1 = Conv<pads=[1,1,1,1]>(image, conv1_w, conv1_b)
    [relu1] a2 = Relu(a1)
    [conv2] a3 = Conv<pads=[1,1,1,1]>(a2, conv2_w, conv2_b)
    [bn2] a4 = BatchNormalization(a3, scale, shift, mean, variance)
    [sum] a5 = Add(a4, a2)
    [relu2] a6 = Relu(a5)
    [lrn] a7 = LRN<size=5>(a6)
    [pool] a8 = AveragePool<kernel_shape=[8,8], strides=[8,8]>(a7)
    [reshape] a9 = Reshape(a8, flat)
    [fc1] a10 = MatMul(a9, fc1_w)
    [bias1] a11 = Add(a10, fc1_b)
    [relu3] a12 = Relu(a11)
    [fc2] scores = Gemm(a12, fc2_w, fc2_b)
}}
"""
_SHAPES = {
    "conv1_w": (32, 3, 3, 3),
    "conv1_b": (32,),
    "conv2_w": (32, 32, 3, 3),
    "conv2_b": (32,),
    **dict.fromkeys(("scale", "shift", "mean", "variance"), (32,)),
    "fc1_w": (512, 64),
    "fc1_b": (64,),
    "fc2_w": (64, 10),
    "fc2_b": (10,),
}


@pytest.fixture(autouse=True)
def signals_of_the_tests() -> Iterator[None]:
    """Undo what the command line, run in this process, does to the process."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def residual_net() -> Build:
    """Give a function that builds a network with Conv + Relu, Conv + BN + sum, LRN and FCs.

    Its argument ``batch`` is a number, or a name for a batch size that is left open.
    """

    def build(batch: int | str = 1, *, seed: int = 0) -> onnx.ModelProto:
        first = -1 if isinstance(batch, str) else batch
        model = parser.parse_model(_RESIDUAL.format(batch=batch, first=first))
        rng = np.random.default_rng(seed)
        for name, shape in _SHAPES.items():
            fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
            value = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
            if name == "variance":
                value = 1 + value**2
            tensor = numpy_helper.from_array(value.astype(np.float32), name)
            model.graph.initializer.append(tensor)
        onnx.checker.check_model(model)
        return model

    return build


@pytest.fixture(scope="session")
def light_folder() -> Path:
    """The folder of the networks inside the onnx package: structure, with constant weights."""
    return Path(onnx.__file__).parent / "backend/test/data/light"
