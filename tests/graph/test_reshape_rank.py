"""Shapes behind a Reshape whose target is computed in a way that inference cannot follow."""

from __future__ import annotations

import numpy as np
from builders import text_model

from onnx_lowrank.graph.check import infer_shapes
from onnx_lowrank.graph.layers import find_layers

# As converters from TensorFlow write Flatten: the sizes pass through floats.
FLATTEN = """
net (float[N,4,2,2] x) => (float[N,3] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {-1}> {
    shape = Shape(x)
    cast = Cast<to=1>(shape)
    batch = Slice(cast, zero, one)
    back = Cast<to=7>(batch)
    target = Concat<axis=0>(back, rest)
    flat = Reshape(x, target)
    [fc] y0 = MatMul(flat, w)
    y = Relu(y0)
}
"""  # noqa: E501


def test_the_rank_comes_from_the_length_of_the_target() -> None:
    model = text_model(FLATTEN, {"w": np.ones((16, 3), np.float32)})
    shapes = infer_shapes(model, {"x": (1, 4, 2, 2)})
    assert len(shapes["flat"]) == 2
    (layer,) = find_layers(model, input_shapes={"x": (1, 4, 2, 2)})
    assert layer.spec is not None
    assert (layer.spec.input_size, layer.spec.macs) == ((), 48)
