"""What became of a model: refused with a reason, verified, failed, or wrong."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort

# Of the largest value of an output: full ranks change sums of a few thousand terms in float32, and
# what comes behind them may amplify that. A wrong rewriting is off by the order of the output.
TOLERANCE = 1e-3
HALF = 3e-2  # where the model computes in 16 bits
LOSSLESS = {
    "tucker2": "tucker2:R1=100%,R2=100%",
    "bicluster-svd": "bicluster-svd:G=1,H=1,K1=100%,K2=100%",
    "spatial": "spatial:R=100%",
    "channel": "channel:R=100%",
    "svd": "svd:R=100%",
}
MOST_LAYERS = 6  # of one model, and none of more weights: full ranks of wide layers take a while
MOST_WEIGHTS = 300_000
MOST_BYTES = 1 << 28  # of the inputs and outputs that are run here


class Ran(NamedTuple):
    """What a command did."""

    code: int | str
    out: str
    err: str


def command(*arguments: object) -> Ran:
    """Run a command line in this process; ``code`` is "traceback" where it raised."""
    from onnx_lowrank.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["onnx-lowrank", *map(str, arguments)]
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 0
            except BaseException:
                code = "traceback"
                err.write(traceback.format_exc())
    finally:
        sys.argv = before
    return Ran(code, out.getvalue(), err.getvalue())


def fault(ran: Ran) -> str | None:
    """Return what is wrong with how a command ended, or None.

    Right is exit code 0 or 1; or 2 and one line, with a cause and a remedy. No text has control
    characters but line ends.
    """
    if ran.code == "traceback" or "Traceback (most recent call last)" in ran.err:
        last = ran.err.strip().splitlines()[-1:] or [""]
        where = [line.strip() for line in ran.err.splitlines() if line.startswith('  File "')]
        return f"traceback: {last[0][:200]} ({where[-1][-120:] if where else ''})"
    if ran.code not in (0, 1, 2):
        return f"exit code {ran.code}"
    lines = ran.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if ran.code == 2 and (len(errors) != 1 or lines[-1:] != errors):
        return f"exit 2 without one line: {ran.err[:200]!r}"
    if any((ord(c) < 32 and c not in "\n\r") or 127 <= ord(c) < 160 for c in ran.out + ran.err):
        return "control characters"
    return None


def reason(ran: Ran) -> str:
    """Return the words of an error line that are the same for all of its kind."""
    line = next((s for s in ran.err.splitlines() if s.startswith("error: ")), "error: none given")
    words = line.removeprefix("error: ").split(";")[0]
    return " ".join(w for w in words.split() if w.isalpha() and w.isascii())[:60]


def differs(
    original: onnx.ModelProto, path: Path, *, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> str | None:
    """Return in what a written model differs from its original, or None.

    Both are run in onnxruntime as they stand, without any part of the package, on random inputs.
    An original that onnxruntime does not run has nothing to be compared with.
    """
    try:
        first = _session(original.SerializeToString())
    except Exception:
        return None
    try:
        second = _session(str(path))
    except Exception as error:
        return f"onnxruntime does not load the result: {str(error)[:200]}"
    for kind, ours, theirs in (
        ("inputs", first.get_inputs(), second.get_inputs()),
        ("outputs", first.get_outputs(), second.get_outputs()),
    ):
        if [(i.name, i.type) for i in ours] != [(i.name, i.type) for i in theirs]:
            return f"other {kind}"
    feeds = _feeds(first, np.random.default_rng(seed), sizes or {})
    if feeds is None:
        return None
    try:
        expected = first.run(None, feeds)
    except Exception:
        return None
    try:
        found = second.run(None, feeds)
    except Exception as error:
        return f"onnxruntime does not run the result: {str(error)[:200]}"
    for info, a, b in zip(first.get_outputs(), expected, found, strict=True):
        if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub":
            continue
        if a.shape != b.shape:
            return f"output '{info.name}' has shape {b.shape} instead of {a.shape}"
        ours, theirs = a.astype(np.float64), b.astype(np.float64)
        if not np.isfinite(ours).all():
            continue
        largest = np.abs(ours).max(initial=0.0)
        error = np.abs(ours - theirs).max(initial=0.0)
        limit = (HALF if _is_half(original) else TOLERANCE) * (largest or 1.0)
        if not error <= limit and a.dtype.kind == "f":
            return f"output '{info.name}' is off by {error:.3g} of {largest:.3g}"
    return None


def _is_half(model: onnx.ModelProto) -> bool:
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(t.data_type in halves for t in model.graph.initializer) or any(
        v.type.tensor_type.elem_type in halves for v in (*model.graph.input, *model.graph.output)
    )


def _session(source: str | bytes) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _feeds(
    session: Any, rng: np.random.Generator, sizes: Mapping[str, int]
) -> dict[str, Any] | None:
    """Return random inputs; None where one is no plain tensor, or too large."""
    kinds = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(float16)": np.float16,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(uint8)": np.uint8,
        "tensor(int8)": np.int8,
        "tensor(bool)": np.bool_,
    }
    feeds = {}
    for info in session.get_inputs():
        if info.type not in kinds:
            return None
        shape = [d if isinstance(d, int) and d >= 0 else sizes.get(str(d), 2) for d in info.shape]
        if np.prod([float(d) for d in shape]) * 8 > MOST_BYTES:
            return None
        dtype = np.dtype(kinds[info.type])
        value = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[info.name] = value.astype(dtype)
    return feeds


def compressed(
    data: bytes, plan: Mapping[str, str], *options: str, seed: int = 0, sizes: Mapping[str, int]
) -> str:
    """Compress a model with a plan that loses nothing, and return the outcome in one line.

    Parameters
    ----------
    data : bytes
        The model.
    plan : mapping of str to str
        Layer name -> scheme.
    *options : str
        Further words of the command.
    seed : int
        Of the inputs that both models are run on afterwards.
    sizes : mapping of str to int
        What the names of open sizes stand for.

    Returns
    -------
    str
        ``"verified"``, ``"refused: REASON"``, ``"failed"`` where the verdict was a failure and
        nothing was written, or what is wrong.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target, rules = folder / "model.onnx", folder / "new.onnx", folder / "plan.json"
        source.write_bytes(data)
        layers = [{"name": layer, "scheme": scheme} for layer, scheme in plan.items()]
        rules.write_text(json.dumps({"version": 1, "layers": layers}))
        ran = command("compress", source, "-o", target, "--plan", rules, *options)
        if wrong := fault(ran):
            return wrong
        if source.read_bytes() != data:
            return "wrong: the input was changed"
        left = {p.name for p in folder.iterdir()} - {"model.onnx", "new.onnx", "plan.json"}
        if left:
            return f"half-written: {sorted(left)}"
        if ran.code == 2:
            return f"half-written: {target}" if target.exists() else f"refused: {reason(ran)}"
        if ran.code == 1:
            return "wrong: written after a failed verdict" if target.exists() else "failed"
        if not target.exists():
            return "wrong: nothing was written"
        original = onnx.ModelProto.FromString(data)
        difference = differs(original, target, seed=seed, sizes=sizes)
        return f"wrong: {difference}" if difference else "verified"


def lossless_plan(data: bytes, seed: int) -> dict[str, str] | str:
    """Return full ranks of a random scheme for each layer of a model, or the refusal of `inspect`.

    Full ranks reproduce a layer to rounding, of every scheme that is listed here.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(data)
        ran = command("inspect", source, "--json")
        if wrong := fault(ran):
            return wrong
        if ran.code:
            return f"refused: {reason(ran)}"
        rng = np.random.default_rng(seed)
        plan = {}
        for layer in json.loads(ran.out)["layers"]:
            possible = [LOSSLESS[name] for name in layer["schemes"] if name in LOSSLESS]
            small = (layer["params"] or 0) <= MOST_WEIGHTS
            if possible and small and len(plan) < MOST_LAYERS:
                plan[layer["name"]] = possible[rng.integers(0, len(possible))]
        return plan or "refused: no layer can be replaced"
