"""Time every op with one thread and with several, against the dense Conv's gain in the same run.

Wall-clock time, which needs cores that nobody else uses. A pool's threads go on spinning for a
while after a run, so each session gets a few runs in a row after a pause, in turns.

    python custom_ops/bench/scaling.py --library build/libonnx_lowrank_ops.so
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort
from bench import build, name, points, session
from cases import Point

_BLOCK = 8  # runs in a row; the first two, on cold caches and sleeping threads, do not count
_PAUSE = 0.02  # seconds, longer than a pool spins


def measure(point: Point, threads: int, library: str, rounds: int) -> dict[str, float]:
    """Return lower-quartile ms by "node 1", "node 2", "dense 1" ..., checked against each other."""
    rng = np.random.default_rng(7)
    portable, dense, _, shape = build(point, rng)
    x = rng.standard_normal(shape).astype(np.float32)
    sessions = {}
    for n in (1, threads):
        sessions[f"node {n}"] = session(portable, n, library)
        if dense is not None:
            sessions[f"dense {n}"] = session(dense, n, None)
    bound, times = {}, {}
    for key, s in sessions.items():
        (y,) = s.run(None, {"X": x})
        one = sessions[f"{key.split()[0]} 1"].run(None, {"X": x})[0]
        # Rows are shared out differently, sums are not: float32 rounding of fused products at most.
        if not np.abs(y - one).max() <= 1e-5 * np.abs(one).max():
            raise SystemExit(f"{name(point)}: {key} differs from one thread")
        bound[key], times[key] = s.io_binding(), []
        bound[key].bind_cpu_input("X", x)
        bound[key].bind_ortvalue_output("Y", ort.OrtValue.ortvalue_from_numpy(np.empty_like(y)))
    for _ in range(rounds):
        for key, s in sessions.items():
            time.sleep(_PAUSE)
            for i in range(_BLOCK):
                start = time.perf_counter()
                s.run_with_iobinding(bound[key])
                if i >= 2:
                    times[key].append(time.perf_counter() - start)
    return {key: float(np.percentile(t, 25)) * 1e3 for key, t in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    n = arguments.threads
    print(f"{'point':44}  node 1  node {n}  gain  dense gain")
    for point in points():
        if arguments.only not in name(point):
            continue
        t = measure(point, n, arguments.library, arguments.rounds)
        dense = t.get("dense 1", np.nan) / t.get(f"dense {n}", np.nan)
        print(
            f"{name(point):44} {t['node 1']:7.3f} {t[f'node {n}']:7.3f} "
            f"{t['node 1'] / t[f'node {n}']:5.2f} {dense:11.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
