"""Time every op on the GPU at its operating points, and a whole network; print the table as JSON.

For batch 1, 32 and 128, in float32 and float16: the portable node with its CUDA kernel, its body of
standard ops, and the dense Conv, all through onnxruntime's CUDA provider on one stream, inputs and
outputs bound on the device, interleaved run by run, events around each run, medians of 100. The
floor is the larger of counted bytes over the bandwidth and counted multiply-adds over the rate that
this GPU reached in a copy and in a large product of the type just before. Results are compared with
the CPU before they are timed. Last comes zfnet512 at batch 128: the original, and both lowerings,
the portable one with all kernels and with those that are registered by default.

    python custom_ops/bench/cuda_bench.py --library build/libonnx_lowrank_cuda_ops.so > cuda.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from bench import build, name, points
from network import PLAN, SIDE, rewritten, zfnet512
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_lowrank.errors import OnnxLowRankError, ProviderError
from onnx_lowrank.runtime import Provider, open_session, require_provider
from onnx_lowrank.runtime.cuda import Device
from onnx_lowrank.runtime.runner import OrtRunner

RUNS, WARM_UP = 100, 10
NETWORK, NETWORK_BATCH = "zfnet512", 128
OPS = "ONNX_LOWRANK_CUDA_OPS"  # names what the library registers, read whenever a session opens
TYPES = {"float32": np.float32, "float16": np.float16}
# Relative to the largest output: float32 sums of up to a few thousand terms, then one rounding.
FLOAT32, ROUNDING = 1e-5, {"float32": 0.0, "float16": 2.0**-11}
# Eight rewritten or plain layers, each within FLOAT32 of its largest output; softmax turns an error
# d of its scores into a relative one of up to 2 d, and the scores are below 6.
NETWORK_ERROR = 8 * FLOAT32 * 2 * 6
Runners = Mapping[str, OrtRunner]


class Moment(Protocol):
    """A moment on a stream, as `onnx_lowrank.runtime.cuda.Event`."""

    def record(self, stream: int) -> None:
        """Queue it."""

    def milliseconds_since(self, earlier: Any) -> float:
        """Return the time from an earlier one."""
        ...

    def close(self) -> None:
        """Free it."""


class Clock(Protocol):
    """What gives events and waits for them, as `onnx_lowrank.runtime.cuda.Device`."""

    def event(self) -> Moment:
        """Return a new event."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""


@dataclass(frozen=True)
class Place:
    """Where models run and what times them there."""

    clock: Clock
    stream: int
    provider: Provider = "cuda"
    runs: int = RUNS

    def load(self, model: ModelProto, feeds: Mapping[str, NDArray[Any]], **how: Any) -> OrtRunner:
        """Return a model bound to its inputs there."""
        return OrtRunner(model, feeds, provider=self.provider, stream=self.stream, **how)

    def medians(self, runners: Runners) -> dict[str, float]:
        """Return the median milliseconds of each runner, interleaved."""
        events = {
            key: [(self.clock.event(), self.clock.event()) for _ in range(self.runs)]
            for key in runners
        }
        for runner in runners.values():
            for _ in range(WARM_UP):
                runner.queue()
        self.clock.synchronize()
        for i in range(self.runs):
            for key, runner in runners.items():
                begin, end = events[key][i]
                begin.record(self.stream)
                runner.queue()
                end.record(self.stream)
                self.clock.synchronize()
        result = {}
        for key, pairs in events.items():
            result[key] = float(np.median([end.milliseconds_since(begin) for begin, end in pairs]))
            for event in (each for pair in pairs for each in pair):
                event.close()
        return result


def one_op(op: str, shapes: list[list[int]], kind: str) -> ModelProto:
    """Return a model of one op on inputs of these shapes and a type of `TYPES`."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(TYPES[kind]))
    inputs = [
        helper.make_tensor_value_info(f"x{i}", element, shape) for i, shape in enumerate(shapes)
    ]
    node = helper.make_node(op, [value.name for value in inputs], ["y"])
    output = helper.make_tensor_value_info("y", element, [None] * len(shapes[0]))
    graph = helper.make_graph([node], op, inputs, [output])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def measure_machine(
    place: Place, kinds: Sequence[str], *, numbers: int = 1 << 28, side: int = 8192
) -> dict[str, Any]:
    """Measure bytes per second, and multiply-adds per second of each type, without TF32."""
    rng = np.random.default_rng(0)
    big = {"x0": rng.standard_normal((numbers,), np.float32)}
    # Neg, as a copy alone would be optimised away: one read and one write.
    runners = {"copy": place.load(one_op("Neg", [[numbers]], "float32"), big)}
    for kind in kinds:
        square = {
            f"x{i}": rng.standard_normal((side, side), np.float32).astype(TYPES[kind])
            for i in range(2)
        }
        runners[kind] = place.load(one_op("MatMul", [[side, side]] * 2, kind), square)
    times = place.medians(runners)
    return {
        "bytes_per_s": 2 * 4 * numbers / times["copy"] * 1e3,
        "macs_per_s": {kind: side**3 / times[kind] * 1e3 for kind in kinds},
    }


def measure(
    point: dict[str, Any], batch: int, kind: str, place: Place, peak: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row of one point: milliseconds, speedups, fraction of the floor, error."""
    rng = np.random.default_rng(7)
    portable, dense, theoretical, shape = build(point, rng, TYPES[kind])
    x = rng.standard_normal((batch, *shape[1:])).astype(TYPES[kind])
    feeds = {"X": x}
    variants = {
        "node": place.load(portable, feeds),
        "standard": place.load(portable, feeds, custom_ops=False),
    }
    if dense is not None:
        variants["dense"] = place.load(dense, feeds)
        if kind == "float32":
            variants["dense with TF32"] = place.load(dense, feeds, tf32=True)
            variants["standard with TF32"] = place.load(
                portable, feeds, tf32=True, custom_ops=False
            )
    variants["node"].run()
    ours = variants["node"].outputs()["Y"]
    # The first image, on the CPU, in float32 throughout.
    body = open_session(in_float32(portable), custom_ops=False).run({"X": x[:1].astype(np.float32)})
    error = relative_error(ours[:1], body["Y"])
    if not error <= FLOAT32 + ROUNDING[kind]:
        raise SystemExit(f"{name(point)}, {kind}: node and body differ by {error:.1e}")
    row: dict[str, Any] = {"name": name(point), "batch": batch, "type": kind, "error": error}
    row["milliseconds"] = times = place.medians(variants)
    weights = sum(numpy_helper.to_array(t).nbytes for t in portable.graph.initializer)
    moved = x.nbytes + ours.nbytes + weights
    macs = 0.0
    if dense is not None:
        macs = point["C"] * point["k"] ** 2 * ours.size / theoretical
    row["bytes"], row["macs"] = moved, macs
    floor = 1e3 * max(moved / peak["bytes_per_s"], macs / peak["macs_per_s"][kind])
    row["floor_ms"], row["fraction_of_floor"] = floor, floor / times["node"]
    row["over_standard"] = times["standard"] / times["node"]
    if dense is not None:
        row["over_dense"], row["theoretical"] = times["dense"] / times["node"], theoretical
        if kind == "float32":
            row["over_dense_with_tf32"] = times["dense with TF32"] / times["node"]
    return row


def measure_network(batch: int, place: Place) -> dict[str, Any]:
    """Return the row of the whole network: milliseconds of its forms, and how much faster."""
    rng = np.random.default_rng(7)
    original = zfnet512(rng)
    standard, portable = (rewritten(original, portable=each) for each in (False, True))
    feeds = {"data": rng.standard_normal((batch, 3, SIDE, SIDE), np.float32)}
    variants = {
        "original": place.load(original, feeds),
        "standard": place.load(standard, feeds),
        "portable": place.load(portable, feeds),
        "original with TF32": place.load(original, feeds, tf32=True),
        "standard with TF32": place.load(standard, feeds, tf32=True),
        "portable with TF32": place.load(portable, feeds, tf32=True),
    }
    with default_ops():
        variants["portable, default ops"] = place.load(portable, feeds)
    outputs = {}
    for key in ("standard", "portable", "portable, default ops"):
        variants[key].run()
        (outputs[key],) = variants[key].outputs().values()
    error = max(
        relative_error(outputs[key], outputs["standard"]) for key in outputs if key != "standard"
    )
    if not error <= NETWORK_ERROR:
        raise SystemExit(f"{NETWORK}: the two lowerings differ by {error:.1e}")
    times = place.medians(variants)
    return {
        "name": NETWORK,
        "batch": batch,
        "type": "float32",
        "plan": list(PLAN),
        "error": error,
        "milliseconds": times,
        "over_original": {key: times["original"] / each for key, each in times.items()},
    }


@contextmanager
def default_ops() -> Iterator[None]:
    """Register the ops that are registered by default, in sessions opened meanwhile."""
    chosen = os.environ.pop(OPS, None)
    try:
        yield
    finally:
        if chosen is not None:
            os.environ[OPS] = chosen


def in_float32(proto: ModelProto) -> ModelProto:
    """Return a model of one node in float32, its weights as they are."""
    wide = ModelProto()
    wide.CopyFrom(proto)
    for tensor in wide.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    for info in (*wide.graph.input, *wide.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    return wide


def relative_error(ours: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference over the largest expected value."""
    return float(np.abs(ours.astype(np.float64) - expected).max() / np.abs(expected).max())


def verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Return whether each target of the layers, in float32, is met by what was measured."""
    layers = [r for r in rows if "over_standard" in r and r["type"] == "float32"]
    six = [r for r in layers if r["batch"] == 128 and r["name"].endswith("mono 6")]
    return {
        "mono 6 at batch 128 at least 2.5x": bool(six) and all(r["over_dense"] >= 2.5 for r in six),
        "no point slower than standard ops": bool(layers)
        and all(r["over_standard"] >= 1 for r in layers),
    }


def open_gpu(library: Path) -> Device:
    """Return the GPU, kernels of `library` registered with every session on it.

    Raises
    ------
    ProviderError
        There is no library, no CUDA provider or no GPU.
    """
    require_provider("cuda")
    device = Device()
    if not library.is_file():
        raise ProviderError(
            f"no library at {library}; build it with cmake -DONNX_LOWRANK_CUDA=ON where nvcc is"
        )
    os.environ["ONNX_LOWRANK_CUDA_LIBRARY"] = str(library)
    os.environ[OPS] = "all"
    return device


def main() -> None:
    """Print the table as JSON, progress on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--only", default="", help="part of the names to measure")
    arguments = parser.parse_args()
    try:
        device = open_gpu(arguments.library)  # kept until the process ends, as its stream is
    except OnnxLowRankError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    place = Place(device, device.stream())
    peak = measure_machine(place, arguments.types)
    rows = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)

    for point in points():
        if arguments.only in name(point):
            for batch in arguments.batches:
                for kind in arguments.types:
                    keep(measure(point, batch, kind, place, peak))
    if arguments.only in NETWORK:
        keep(measure_network(NETWORK_BATCH, place))
    about = {
        "gpu": device.name,
        "compute_capability": list(device.compute_capability),
        "onnxruntime": ort.__version__,
        "settings": "TF32 off unless named; cudnn_conv_algo_search EXHAUSTIVE",
        "runs": place.runs,
        **peak,
    }
    print(json.dumps({"machine": about, "rows": rows, "targets": verdicts(rows)}, indent=1))


if __name__ == "__main__":
    main()
