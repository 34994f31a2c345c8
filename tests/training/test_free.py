"""Models that fix their batch: which compute any other, and which do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import text_model

torch = pytest.importorskip("torch", reason="torch is not installed: extra finetune")

from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training.executor import Network
from onnx_lowrank.training.free import free_batch

RNG = np.random.default_rng(0)
WEIGHTS: dict[str, Any] = {
    "w": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "v": RNG.standard_normal((100, 5)).astype(np.float32),
    "flat": np.array([1, 100]),
    "rows": np.array([-1, 100]),
    "axis": np.array([0]),
}


def model(nodes: str, batch: int | str = 1) -> onnx.ModelProto:
    text = f"net (float[{batch},3,5,5] x) => (float[{batch},5] y) {{ {nodes} }}"
    used = {name: value for name, value in WEIGHTS.items() if name in nodes}
    return text_model(text, used)


CONV = "a = Conv<pads=[1,1,1,1]>(x, w)"
FREE = f"{CONV} b = Reshape(a, rows) y = MatMul(b, v)"


def freed(net: onnx.ModelProto, batch: int, count: int = 2) -> tuple[Any, ...]:
    inputs = model_inputs(net)
    feeds = [{"x": RNG.standard_normal((batch, 3, 5, 5)).astype(np.float32)} for _ in range(count)]
    return tuple(info.shape for info in free_batch([Network(net)], inputs, feeds))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_nothing_depends_on_is_freed(batch: int, count: int) -> None:
    assert freed(model(FREE, batch), batch, count) == (("N", 3, 5, 5),)


@pytest.mark.parametrize(
    "nodes",
    [
        f"{CONV} b = Reshape(a, flat) y = MatMul(b, v)",  # no other batch has that size
        f"{FREE.replace('y =', 'c =')} m = ReduceMean<axes=[0], keepdims=1>(c) y = Sub(c, m)",
        f"{FREE.replace('y =', 'c =')} y = Softmax<axis=0>(c)",
    ],
)
def test_one_that_something_depends_on_stays(nodes: str) -> None:
    assert freed(model(nodes), 1) == ((1, 3, 5, 5),)


def test_a_free_batch_is_not_asked_about() -> None:
    net = model(FREE, "N")
    inputs = model_inputs(net)
    assert free_batch([], inputs, []) == tuple(inputs)
