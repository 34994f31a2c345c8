"""Time every op on the GPU at its operating points, in one call; print the table as JSON.

For batch 1, 32 and 128: the portable node with its CUDA kernel, its body of standard ops, and the
dense Conv, all through onnxruntime's CUDA provider on one stream, inputs and outputs bound on the
device, interleaved run by run, events around each run, medians of 100. The floor is the larger of
counted bytes over the bandwidth and counted multiply-adds over the rate that this GPU reached in
a copy and in a large product just before. Results are compared with the CPU before they are timed.

    python custom_ops/bench/cuda_bench.py --library build/libonnx_lowrank_cuda_ops.so > cuda.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
from bench import build, name, points
from onnx import TensorProto, helper

from onnx_lowrank.runtime.cuda import Device
from onnx_lowrank.runtime.runner import OrtRunner

RUNS, WARM_UP = 100, 10
Runners = dict[str, OrtRunner]


def medians(device: Device, stream: int, runners: Runners) -> dict[str, float]:
    """Return the median milliseconds of each runner, interleaved."""
    events = {key: [(device.event(), device.event()) for _ in range(RUNS)] for key in runners}
    for runner in runners.values():
        for _ in range(WARM_UP):
            runner.queue()
    device.synchronize()
    for i in range(RUNS):
        for key, runner in runners.items():
            begin, end = events[key][i]
            begin.record(stream)
            runner.queue()
            end.record(stream)
            device.synchronize()
    result = {}
    for key, pairs in events.items():
        result[key] = float(np.median([end.milliseconds_since(begin) for begin, end in pairs]))
        for event in (each for pair in pairs for each in pair):
            event.close()
    return result


def one_op(op: str, shapes: list[list[int]]) -> Any:
    """Return a model of one op on inputs of these shapes."""
    inputs = [
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape)
        for i, shape in enumerate(shapes)
    ]
    node = helper.make_node(op, [value.name for value in inputs], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shapes[0]))
    graph = helper.make_graph([node], op, inputs, [output])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def machine(device: Device, stream: int) -> dict[str, float]:
    """Measure bytes and multiply-adds per second, as float32 without TF32."""
    rng = np.random.default_rng(0)
    big = {"x0": rng.standard_normal((1 << 28,), np.float32)}
    square = {f"x{i}": rng.standard_normal((8192, 8192), np.float32) for i in range(2)}
    # Neg, as a copy alone would be optimised away: one read and one write.
    copy = OrtRunner(one_op("Neg", [[1 << 28]]), big, provider="cuda", stream=stream)
    product = OrtRunner(
        one_op("MatMul", [[8192, 8192]] * 2), square, provider="cuda", stream=stream
    )
    times = medians(device, stream, {"copy": copy, "product": product})
    return {
        "bytes_per_s": 2 * 4 * 2**28 / times["copy"] * 1e3,
        "macs_per_s": 8192**3 / times["product"] * 1e3,
    }


def measure(
    point: dict[str, Any], batch: int, device: Device, stream: int, peak: dict[str, float]
) -> dict[str, Any]:
    """Return the row of one point: milliseconds, speedups, fraction of the floor, error."""
    rng = np.random.default_rng(7)
    portable, dense, theoretical, shape = build(point, rng)
    x = rng.standard_normal((batch, *shape[1:])).astype(np.float32)
    settings = {"provider": "cuda", "stream": stream}
    variants: Runners = {
        "node": OrtRunner(portable, {"X": x}, **settings),
        "standard": OrtRunner(portable, {"X": x}, custom_ops=False, **settings),
    }
    if dense is not None:
        variants["dense"] = OrtRunner(dense, {"X": x}, **settings)
        variants["dense with TF32"] = OrtRunner(dense, {"X": x}, tf32=True, **settings)
        variants["standard with TF32"] = OrtRunner(
            portable, {"X": x}, tf32=True, custom_ops=False, **settings
        )
    variants["node"].run()
    ours = variants["node"].outputs()["Y"]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    cpu = ort.InferenceSession(
        portable.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (body,) = cpu.run(None, {"X": x[:1]})  # the first image, on the CPU
    error = float(np.abs(ours[:1] - body).max() / np.abs(body).max())
    if not error < 1e-5:  # float32 sums of up to a few thousand terms, of the largest output
        raise SystemExit(f"{name(point)}: node and body differ by {error:.1e}")
    row: dict[str, Any] = {"name": name(point), "batch": batch, "error": error}
    row["milliseconds"] = times = medians(device, stream, variants)
    weights = sum(4 * int(np.prod(t.dims)) for t in portable.graph.initializer)
    moved = x.nbytes + ours.nbytes + weights
    macs = 0.0
    if dense is not None:
        dense_macs = point["C"] * point["k"] ** 2 * ours.size
        macs = dense_macs / theoretical
    row["bytes"], row["macs"] = moved, macs
    floor = 1e3 * max(moved / peak["bytes_per_s"], macs / peak["macs_per_s"])
    row["floor_ms"], row["fraction_of_floor"] = floor, floor / times["node"]
    row["over_standard"] = times["standard"] / times["node"]
    if dense is not None:
        row["over_dense"], row["theoretical"] = times["dense"] / times["node"], theoretical
        row["over_dense_with_tf32"] = times["dense with TF32"] / times["node"]
    return row


def verdicts(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Return whether each target is met."""
    six = [r for r in rows if r["batch"] == 128 and r["name"].endswith("mono 6")]
    return {
        "mono 6 at batch 128 at least 2.5x": bool(six) and all(r["over_dense"] >= 2.5 for r in six),
        "no point slower than standard ops": all(r["over_standard"] >= 1 for r in rows),
    }


def main() -> None:
    """Print the table as JSON, progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    os.environ["ONNX_LOWRANK_CUDA_LIBRARY"] = arguments.library
    os.environ["ONNX_LOWRANK_CUDA_OPS"] = "all"
    device = Device()  # kept until the process ends, as its stream is
    stream = device.stream()
    peak = machine(device, stream)
    rows = []
    for point in points():
        if arguments.only not in name(point):
            continue
        for batch in arguments.batches:
            rows.append(measure(point, batch, device, stream, peak))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    about = {
        "gpu": device.name,
        "compute_capability": list(device.compute_capability),
        "onnxruntime": ort.__version__,
        "settings": "float32; TF32 off unless named; cudnn_conv_algo_search EXHAUSTIVE",
        "runs": RUNS,
        **peak,
    }
    print(json.dumps({"machine": about, "rows": rows, "targets": verdicts(rows)}, indent=1))


if __name__ == "__main__":
    main()
