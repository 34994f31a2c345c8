"""Small models that several tests share, and the command line in this process."""

from __future__ import annotations

import os

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    # Threads that spin for their part of a product would take the cores from the other workers.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_lowrank.cli import main

# The builders of small models are a top-level module, in every import mode.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("conformance")

LONGEST = tuple(
    f"tests/{name}.py"
    for name in (
        "trust/test_mutants",
        "trust/test_models",
        "trust/test_kills",
        "custom_ops/test_cpp",
    )
)
Build = Callable[..., onnx.ModelProto]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run of `tests/trust` try more than every change can wait for."""
    parser.addoption("--trust-scale", type=float, help="times as many tries in tests/trust")


def pytest_configure(config: pytest.Config) -> None:
    """Hand the scale to the modules of `tests/trust`, in worker processes too."""
    if scale := config.getoption("--trust-scale"):
        os.environ["ONNX_LOWRANK_TRUST_SCALE"] = str(scale)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes: at the end, one worker would be left alone with it."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was tried in `tests/trust`, and what became of it, as a Markdown table."""
    rows = [
        (name, counts)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for key, found in report.user_properties
        if key == "trust"
        for name, counts in found.items()
    ]
    if rows:
        terminalreporter.section("tries")
        terminalreporter.write_line("| tries | number | of which |")
        terminalreporter.write_line("|---|---|---|")
    for name, counts in sorted(rows):
        rest = ", ".join(f"{n} {what}" for what, n in counts.items() if what != "tried")
        terminalreporter.write_line(f"| {name} | {counts.get('tried', 0)} | {rest} |")


_RESIDUAL = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[{batch},3,32,32] image) => (float[{batch},10] scores)
<int64[2] flat = {{{first},512}}> {{
    [conv1] a1 = Conv<pads=[1,1,1,1]>(image, conv1_w, conv1_b)
    [relu1] a2 = Relu(a1)
    [conv2] a3 = Conv<pads=[1,1,1,1]>(a2, conv2_w, conv2_b)
    [bn2] a4 = BatchNormalization(a3, scale, shift, mean, variance)
    [sum] a5 = Add(a4, a2)
    [relu2] a6 = Relu(a5)
    [lrn] a7 = LRN<size=5>(a6)
    [pool] a8 = AveragePool<kernel_shape=[8,8], strides=[8,8]>(a7)
    [reshape] a9 = Reshape(a8, flat)
    [fc1] a10 = MatMul(a9, fc1_w)
    [bias1] a11 = Add(a10, fc1_b)
    [relu3] a12 = Relu(a11)
    [fc2] scores = Gemm(a12, fc2_w, fc2_b)
}}
"""
_SHAPES = {
    "conv1_w": (32, 3, 3, 3),
    "conv1_b": (32,),
    "conv2_w": (32, 32, 3, 3),
    "conv2_b": (32,),
    **dict.fromkeys(("scale", "shift", "mean", "variance"), (32,)),
    "fc1_w": (512, 64),
    "fc1_b": (64,),
    "fc2_w": (64, 10),
    "fc2_b": (10,),
}


@pytest.fixture(autouse=True)
def signals_of_the_tests() -> Iterator[None]:
    """Undo what the command line, run in this process, does to the process."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def residual_net() -> Build:
    """Give a function that builds a network with Conv + Relu, Conv + BN + sum, LRN and FCs.

    Its argument ``batch`` is a number, or a name for a batch size that is left open.
    """

    def build(batch: int | str = 1, *, seed: int = 0) -> onnx.ModelProto:
        first = -1 if isinstance(batch, str) else batch
        model = parser.parse_model(_RESIDUAL.format(batch=batch, first=first))
        rng = np.random.default_rng(seed)
        for name, shape in _SHAPES.items():
            fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
            value = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
            if name == "variance":
                value = 1 + value**2
            tensor = numpy_helper.from_array(value.astype(np.float32), name)
            model.graph.initializer.append(tensor)
        onnx.checker.check_model(model)
        return model

    return build


@pytest.fixture(scope="session")
def light_folder() -> Path:
    """The folder of the networks inside the onnx package: structure, with constant weights."""
    return Path(onnx.__file__).parent / "backend/test/data/light"


SIDE, CLASSES = 12, 4


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Give a function that runs a command and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["onnx-lowrank", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert isinstance(exit_.value.code, int)
        return Outcome(exit_.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Convs and a Gemm: 4 classes of images 3 x 12 x 12."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((16, 3, 5, 5)) / 2,
        "w2": rng.standard_normal((16, 16, 3, 3)) / 12,
        "w3": rng.standard_normal((16, CLASSES)) / 4,
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["y1"], "conv1", strides=[2, 2], pads=[2] * 4),
        helper.make_node("Relu", ["y1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["y2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["y2"], ["p2"]),
        helper.make_node("Flatten", ["p2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["scores"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    path = tmp_path_factory.mktemp("classifier") / "net.onnx"
    onnx.save(model, path)
    return path
