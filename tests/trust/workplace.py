"""A folder with a small network, data and a plan, and the real command line run in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from counting import latencies
from onnx import TensorProto, helper, numpy_helper

COMMAND = (sys.executable, "-m", "onnx_lowrank")


def by_operations(place: Path) -> tuple[str, str]:
    """Return options by which a search counts operations: by the clock, nothing may be faster."""
    path = place.parent / "latency.json"
    path.write_text(json.dumps(latencies(onnx.load(place / "net.onnx")).to_dict()))
    return "--latency", str(path)


def make(folder: Path) -> Path:
    """Fill a folder; the weights are of low rank with noise, so that a search finds something."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def low(outputs: int, inputs: int, kernel: int) -> np.ndarray:
        size = inputs * kernel * kernel
        value = rng.standard_normal((outputs, 4)) @ rng.standard_normal((4, size)) / size
        value += 0.02 * rng.standard_normal(value.shape)
        return value.reshape(outputs, inputs, kernel, kernel)

    weights = {"w1": low(16, 3, 5), "w2": low(16, 16, 3), "w3": rng.standard_normal((16, 4)) / 4}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["y1"], "größe", strides=[2, 2], pads=[2] * 4),
        helper.make_node("Relu", ["y1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["y2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["y2"], ["p2"]),
        helper.make_node("Flatten", ["p2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["scores"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 12, 12])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opset), folder / "net.onnx")
    for name, samples in (("data", 48), ("other", 32)):
        image = rng.standard_normal((samples, 3, 12, 12)).astype(np.float32)
        np.savez(folder / f"{name}.npz", image=image, labels=rng.integers(0, 4, samples))
    return folder


def environment(folder: Path, **changes: str | None) -> dict[str, str]:
    """Return variables with a cache in the folder; a change to None takes one away."""
    found: dict[str, Any] = {**os.environ, "ONNX_LOWRANK_CACHE": str(folder / "cache"), **changes}
    found.setdefault("OMP_NUM_THREADS", "1")
    return {name: value for name, value in found.items() if value is not None}


def start(
    folder: Path,
    *arguments: str,
    ignored: Iterable[int] = (),
    start_new_session: bool = False,
    **changes: str,
) -> subprocess.Popen[bytes]:
    """Start a command in the folder, which listens to all signals that are not `ignored`.

    In a session of its own, signals reach it and all that it starts by `os.killpg`, as a terminal
    sends them.
    What ignores signals passes that on to all that it starts, as nohup does with these tests.
    """
    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_DFL)
    handlers.update(dict.fromkeys(map(signal.Signals, ignored), signal.SIG_IGN))

    def listen() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=start_new_session,
        preexec_fn=listen,
    )


def run(
    folder: Path,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=options.pop("cwd", folder),
        env=dict(env or environment(folder)),
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.PIPE),
        text=True,
        errors="backslashreplace",
        check=False,
        timeout=options.pop("timeout", 120),
        **options,
    )
