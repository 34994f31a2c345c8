"""Nodes with impossible or extreme attributes, weights and shapes, run in processes that may die.

`hostile_nodes` makes models of one portable node each; `run_nodes` runs each with the kernels in a
child process, and without them where the node carries its body, and counts what came of it.
Run as a script it prints the counts: ``hostile_nodes.py LIBRARY COUNT SEED [ISA ...]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

sys.path.append(str(Path(__file__).parents[2] / "custom_ops" / "bench"))

import cases
from ops import MODULES
from tables import ISAS, OPS

from onnx_lowrank.rewriting.lowering.functions import ACTIVATING

SHAPE, COMPARED = "x_shape", "compared"  # metadata of a model: what to feed, whether bodies agree
MEMORY = 6 << 30  # address space of a child
# Data are small whole numbers, so that sums are exact in float32; slopes and powers are not.
TOLERANCE = 1e-5
EDGES = [
    *(0, -1, 1, 2, 3, 7, 16, 100, 255, 1000, 4096, 65535, 65536, 10**6, 2**24 + 1),
    *(2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**36, 2**40, 2**61, 2**62, 2**63 - 1),
    *(-2, -(2**31), -(2**32), -(2**63)),
]
Attributes = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


@dataclass
class Node:
    """One node before it is a model."""

    op: str
    inputs: list[str]
    constants: Arrays
    attributes: Attributes
    x: list[int]
    compared: bool = True


def plausible(rng: np.random.Generator) -> Node:
    """Return a node that an exporter could have written, of any kind."""

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    axes = pick(1, 6) // 3 + 1
    size = [pick(1, 6 if axes == 3 else 30) for _ in range(axes)]
    kernel = tuple(pick(1, 4) for _ in range(axes))
    module = MODULES[list(OPS)[pick(0, len(OPS) - 1)]]
    (op, inputs, constants, attributes), channels = module.hostile(pick, rng, kernel)
    for name, value in constants.items():
        if value.dtype == np.float32:
            constants[name] = rng.integers(-2, 3, value.shape).astype(np.float32)
    wide = 60 if pick(0, 3) == 0 else 3  # half-plausible: beyond the kernel, and beyond X
    windowed: Attributes = {
        "strides": [pick(1, wide) for _ in range(axes)],
        "dilations": [pick(1, max(1, wide // 4)) for _ in range(axes)],
        "pads": [pick(0, wide) for _ in range(2 * axes)],
        **cases.activation(*[(), (0.0,), (-1.0, 4.0), (-np.inf, 6.0, 0.25)][pick(0, 3)]),
    }
    if op in ACTIVATING:
        attributes = {**attributes, **windowed}
    return Node(op, inputs, constants, attributes, [pick(1, 2), channels, *size])


def change(rng: np.random.Generator, node: Node) -> None:
    """Change one thing about a node to what no exporter writes."""

    def pick(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    edge, names = pick(EDGES), sorted(node.attributes)
    kind = int(rng.integers(12))
    if kind < 4:  # what sizes are products of
        names = [n for n in names if isinstance(node.attributes[n], (list, int))] or names
    name = pick(names or ["size"])
    value = node.attributes.get(name)
    if kind < 6:
        if isinstance(value, list) and value:
            where = range(len(value)) if kind < 3 else [int(rng.integers(len(value)))]
            node.attributes[name] = [edge if i in where else v for i, v in enumerate(value)]
        elif isinstance(value, float):
            node.attributes[name] = pick([np.nan, np.inf, -np.inf, 0.0, -1e30, 1e-40])
            node.compared = False  # powers and slopes of any size: nothing to compare
        else:
            node.attributes[name] = edge
    elif kind == 6 and node.attributes:
        wrong = [None, "text", 1, 0.5, [], [1], [2] * 9, [1.5, 2.5]]
        node.attributes[name] = pick(wrong)
        if node.attributes[name] is None or node.attributes[name] == []:
            del node.attributes[name]
        node.compared = False
    elif kind == 7:
        node.inputs[int(rng.integers(len(node.inputs)))] = ""
    elif kind == 8:
        node.x = [[], [3], [1, 2], [1, 3, 0, 5], [0, *node.x[1:]], [1] * 6, [0, 2**40, 2**40, 1]][
            int(rng.integers(7))
        ]
    elif kind == 9 and node.x:
        node.x[int(rng.integers(len(node.x)))] = int(rng.integers(0, 40))
    elif node.constants:
        key = pick(sorted(node.constants))
        old = node.constants[key]
        if old.dtype == np.int64 and old.size and kind == 10:
            node.constants[key] = old.copy()
            node.constants[key].flat[int(rng.integers(old.size))] = edge
        else:
            shape = list(old.shape)
            if shape and rng.integers(4):
                at = int(rng.integers(len(shape)))
                shape[at] = pick([0, 1, 2, 5, shape[at] + 1, 2 * shape[at]])
            else:
                shape = pick([[], [2**40, 0], shape[:-1], [*shape, 1], [1] * 7])
            node.constants[key] = np.ones(shape, old.dtype)


def as_model(rng: np.random.Generator, node: Node) -> onnx.ModelProto:
    """Return the model of a node; what is fed and whether the body compares is in its metadata."""
    dtype = [np.float32, np.float32, np.float32, np.float16][int(rng.integers(4))]
    model = cases.model(
        node.op,
        node.inputs,
        node.constants,
        node.attributes,
        tuple(node.x),
        function=bool(rng.integers(3)),
        dtype=dtype,
        opset=17,
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    if rng.integers(5) == 0:  # weights that a caller may replace are no constants
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in model.graph.initializer
        )
    compared = node.compared and bool(model.functions) and dtype == np.float32
    helper.set_model_props(model, {SHAPE: json.dumps(node.x), COMPARED: json.dumps(compared)})
    return model


def hostile_nodes(count: int, seed: int) -> Iterator[onnx.ModelProto]:
    """Yield models of one node each, of every op: two of seven right, the others changed.

    Parameters
    ----------
    count, seed : int
        How many, and which.
    """
    rng = np.random.default_rng(seed)
    for i in range(count):
        node = plausible(rng)
        for _ in range(0 if i % 7 < 2 else int(rng.integers(1, 4))):
            change(rng, node)
        yield as_model(rng, node)


@dataclass
class Counts:
    """What came of the nodes of a run, and those that went wrong."""

    ran: int = 0
    refused: int = 0
    signal: int = 0
    hang: int = 0
    agreed: int = 0
    wrong: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[onnx.ModelProto, str]] = field(default_factory=list)

    def add(self, model: onnx.ModelProto, outcome: str, detail: str = "") -> None:
        """Count one outcome."""
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome == "refused":
            self.reasons[detail] += 1
        if outcome in ("signal", "hang", "wrong"):
            self.failures.append((model, f"{outcome}: {detail}"))


def run_nodes(
    models: Iterator[onnx.ModelProto],
    library: str,
    isa: str,
    *,
    seconds: float = 30.0,
    jobs: int = 2,
    environment: dict[str, str] | None = None,
) -> Counts:
    """Run every model with the kernels of one instruction set, in children that may die.

    Parameters
    ----------
    models : iterator of onnx.ModelProto
        As `hostile_nodes` makes them.
    library : str
        The custom ops.
    isa : str
        Value of ``ONNX_LOWRANK_ISA``.
    seconds : float
        How long a node may take before it counts as a hang.
    jobs : int
        Children at the same time.
    environment : dict of str to str, optional
        Further variables of the children.
    """
    counts, lock = Counts(), threading.Lock()
    failed: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def work() -> None:
        child = _Child(library, isa, environment or {})
        try:
            while True:
                with lock:
                    model = next(models, None)
                if model is None:
                    return
                outcome, detail = child.ask(model, seconds)
                with lock:
                    counts.add(model, outcome, detail)
                if outcome == "ran" and metadata(model, COMPARED):
                    # A body that dies or hangs is onnxruntime's own.
                    compared, detail = child.answer(seconds)
                    if compared in ("agreed", "wrong"):
                        with lock:
                            counts.add(model, compared, detail)
        except BaseException as error:
            failed.put(error)
        finally:
            child.end()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not failed.empty():
        raise failed.get()
    return counts


class _Child:
    """A process that runs one model after another, replaced when it dies."""

    def __init__(self, library: str, isa: str, environment: dict[str, str]) -> None:
        self._command = [sys.executable, __file__, "--child", library]
        self._environment = {**os.environ, "ONNX_LOWRANK_ISA": isa, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, model: onnx.ModelProto, seconds: float) -> tuple[str, str]:
        """Return the outcome of a model and its detail."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
            )
            if self.answer(60.0)[0] != "ready":
                raise RuntimeError("a child that runs hostile nodes does not start")
        assert self._process.stdin
        data = model.SerializeToString()
        try:
            self._process.stdin.write(struct.pack("<q", len(data)) + data)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: the answer says so
        return self.answer(seconds)

    def answer(self, seconds: float) -> tuple[str, str]:
        """Return the next line of the child, or what became of it."""
        process = self._process
        assert process
        assert process.stdout
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), process.kill()))
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if line:
            outcome, detail = json.loads(line)
            return outcome, detail
        code = process.wait()
        self.end()
        return ("hang", f"{seconds} s") if late.is_set() else ("signal", f"exit code {code}")

    def end(self) -> None:
        """Let the process go."""
        if self._process:
            for stream in (self._process.stdin, self._process.stdout):
                assert stream
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
            self._process.wait()
            self._process = None


def metadata(model: onnx.ModelProto, key: str) -> Any:
    """Return what a model says of itself, by SHAPE or COMPARED."""
    return json.loads(next(each.value for each in model.metadata_props if each.key == key))


def _serve(library: str, requests: IO[bytes], answers: IO[str]) -> None:
    """Run models from one stream, as a child; write outcomes to the other."""
    import resource

    import onnxruntime as ort

    def say(outcome: str, detail: str = "") -> None:
        answers.write(json.dumps([outcome, detail]) + "\n")
        answers.flush()

    def run(data: bytes, kernels: bool, x: NDArray[Any]) -> NDArray[Any]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 2
        if kernels:
            options.register_custom_ops_library(library)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"X": x})[0])

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    say("ready")
    while header := requests.read(8):
        data = requests.read(struct.unpack("<q", header)[0])
        model = onnx.load_from_string(data)
        element = model.graph.input[0].type.tensor_type.elem_type
        shape = metadata(model, SHAPE)
        dtype = helper.tensor_dtype_to_np_dtype(element)
        try:
            x = np.random.default_rng(0).integers(-2, 3, shape).astype(dtype)
            y = run(data, True, x)
        except Exception as error:
            say("refused", _reason(str(error)))
            continue
        say("ran")
        if not metadata(model, COMPARED):
            continue
        try:
            body = run(data, False, x)
        except Exception as error:
            say("refused", str(error))
            continue
        say(*_compare(y, body))


def _compare(y: NDArray[Any], body: NDArray[Any]) -> tuple[str, str]:
    if y.shape != body.shape:
        return "wrong", f"shape {y.shape}, by the body {body.shape}"
    if y.size == 0:
        return "agreed", ""
    error = float(np.abs(y - body).max())
    most = float(np.abs(body).max())
    return ("agreed" if error <= TOLERANCE * most + 1e-30 else "wrong"), f"{error} of {most}"


def _reason(message: str) -> str:
    """Return a message without names and numbers, to count by."""
    message = message.split("\n")[0].split("Status Message: ")[-1].split("': ")[-1]
    return "".join("#" if c.isdigit() else c for c in message)[:90]


def main() -> None:
    """Run nodes as a child, or all of them and print the counts."""
    if sys.argv[1] == "--child":
        _serve(sys.argv[2], sys.stdin.buffer, sys.stdout)
        return
    library, count, seed, *isas = sys.argv[1:]
    for isa in isas or ISAS:
        counts = run_nodes(hostile_nodes(int(count), int(seed)), library, isa)
        print(
            f"{isa}: {counts.ran} ran, {counts.refused} refused, {counts.signal} signals, "
            f"{counts.hang} hangs, {counts.agreed} agreed with the body, {counts.wrong} wrong"
        )
        for reason, times in counts.reasons.most_common(12):
            print(f"  {times:5} {reason}")
        for i, (model, failure) in enumerate(counts.failures[:20]):
            print(f"  {failure}")
            onnx.save(model, f"hostile_{isa}_{i}.onnx")


if __name__ == "__main__":
    main()
