"""Time every op at its operating points: against the dense Conv, and against its standard ops.

All variants of a point are interleaved run by run and their results compared; only ratios within
one run mean something on a busy machine. "Theoretical" is the ratio of multiply-adds, "realised"
the measured speedup over it.

    python custom_ops/bench/bench.py --library build/libonnx_lowrank_ops.so --json result.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from cases import Point, activation, model, outputs, window
from numpy.typing import NDArray
from ops import MODULES
from tables import OPS

from onnx_lowrank.rewriting.lowering.functions import ACTIVATING


def points() -> list[Point]:
    """Return the operating points of every op of the table."""
    return [{**point, "op": op} for op in OPS for point in MODULES[op].points()]


def name(point: Point) -> str:
    """Return a short name of a point."""
    sizes = "{C}->{F} {k}x{k} s{s} {n}: ".format(**point) if "F" in point else ""
    return sizes + str(point["label"])


def build(
    point: Point, rng: np.random.Generator, dtype: Any = np.float32
) -> tuple[Any, Any, float, tuple[int, ...]]:
    """Return the portable model, the dense one, the theoretical speedup, and the shape of X."""
    # The first opset whose bodies have activations of the node's own type.
    form = {} if dtype == np.float32 else {"dtype": dtype, "opset": 15}
    (op, inputs, constants, attributes), macs = MODULES[point["op"]].timed(rng, point)
    shape = (1, point["C"], point["n"], point["n"])
    if macs is None:
        return model(op, inputs, constants, attributes, shape, **form), None, 1.0, shape
    c, f, k, s, p = (point[key] for key in "CFksp")
    if op in ACTIVATING:
        attributes = {**attributes, **window((k, k), s, p), **activation()}
    portable = model(op, inputs, constants, attributes, shape, **form)
    weight = (rng.standard_normal((f, c, k, k)) / np.sqrt(c * k * k)).astype(np.float32)
    bias = np.zeros(f, np.float32)
    conv = {"W": weight, "B": bias}
    dense = model("Conv", ["X", *conv], conv, window((k, k), s, p), shape, domain="", **form)
    return portable, dense, c * f * k * k * outputs(point) / macs, shape


def session(proto: Any, threads: int, library: str | None) -> ort.InferenceSession:
    """Open a CPU session, with the kernels if `library` is given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def measure(point: Point, threads: int, library: str, runs: int) -> dict[str, Any]:
    """Interleaved lower-quartile times of one point, in ms, after comparing the results."""
    rng = np.random.default_rng(7)
    portable, dense, theoretical, shape = build(point, rng)
    x = rng.standard_normal(shape).astype(np.float32)
    variants = {
        "node": session(portable, threads, library),
        "standard": session(portable, threads, None),
    }
    if dense is not None:
        variants["dense"] = session(dense, threads, None)
    ours, body = (variants[v].run(None, {"X": x})[0] for v in ("node", "standard"))
    # float32 sums of up to a few thousand terms, relative to the largest output
    error = float(np.abs(ours - body).max() / np.abs(body).max())
    if not error < 1e-5:
        raise SystemExit(f"{name(point)}: node and body differ by {error:.1e}")
    # Outputs are bound once: their allocation and copy are no part of a layer's time.
    bound = {}
    for key, s in variants.items():
        binding = s.io_binding()
        binding.bind_cpu_input("X", x)
        binding.bind_ortvalue_output("Y", ort.OrtValue.ortvalue_from_numpy(np.empty_like(ours)))
        bound[key] = binding
    times: dict[str, list[float]] = {key: [] for key in variants}
    clock = time.thread_time if threads == 1 else time.perf_counter
    for _ in range(runs):
        for key, s in variants.items():
            start = clock()
            s.run_with_iobinding(bound[key])
            times[key].append(clock() - start)
    result: dict[str, Any] = {
        "name": name(point),
        "threads": threads,
        "theoretical": theoretical,
        "error": error,
    }
    quartile: dict[str, NDArray[Any]] = {
        key: np.percentile(t, 25) * 1e3 for key, t in times.items()
    }
    result |= {key: float(t) for key, t in quartile.items()}
    reference = result.get("dense", result["standard"])
    result["measured"] = reference / result["node"]
    result["realised"] = result["measured"] / theoretical
    result["over_standard"] = result["standard"] / result["node"]
    return result


def main() -> None:
    """Print the table; write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    print(f"{'point':44} thr   dense standard    node  theory measured realised vs-std")
    for point in points():
        if arguments.only not in name(point):
            continue
        for threads in arguments.threads:
            r = measure(point, threads, arguments.library, arguments.runs)
            results.append(r)
            print(
                f"{r['name']:44} {threads:3} {r.get('dense', float('nan')):7.3f} "
                f"{r['standard']:8.3f} {r['node']:7.3f} {r['theoretical']:7.2f} "
                f"{r['measured']:8.2f} {r['realised']:8.2f} {r['over_standard']:6.2f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
