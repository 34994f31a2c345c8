"""The fastest float32 arithmetic that onnxruntime reaches on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.runtime.session import Provider

if TYPE_CHECKING:
    import onnx

# Small enough on a CPU that some runs are over before other work interrupts them.
SIZE = {"cpu": 512, "cuda": 8192}
SECONDS = 1.0
MIN_RUNS = 5


@dataclass(frozen=True)
class Peak:
    """Operations per second, and how they were measured."""

    gflops: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"gflops": self.gflops, "method": self.method}


def measure_peak(*, provider: Provider = "cpu", threads: int | None = None) -> Peak:
    """Time a square float32 matrix product in onnxruntime and return the fastest run's speed.

    A multiply-add counts as two operations. The product is large enough for every provider to
    block it well and small enough to be quick; the weights are packed when the session is made,
    as those of a model are.

    Parameters
    ----------
    provider, threads
        As of `OrtRunner`.

    Raises
    ------
    ProviderError
        The provider is missing or not used.
    """
    size = SIZE[provider]
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((size, size), dtype=np.float32)}
    runner = OrtRunner(_product(size, rng), feeds, provider=provider, threads=threads)
    runner.run()
    best, runs, begin = np.inf, 0, time.perf_counter()
    while runs < MIN_RUNS or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        runner.run()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return Peak(
        2 * size**3 / best / 1e9,
        f"fastest of {runs} float32 matrix products {size}x{size}x{size} in onnxruntime, "
        f"same provider and threads",
    )


def _product(size: int, rng: np.random.Generator) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    weight = rng.standard_normal((size, size), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, size])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets)
