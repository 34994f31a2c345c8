"""Runs of every kind, printed by the commands themselves on a small classifier."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.cli import main

# A name that a browser must not read as markup, nor matplotlib as a formula.
EVIL = "<script>console.error('run')</script>$\\frac$"
NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,3,12,12] image) => (float[N,4] scores) {
    y1 = Conv<strides=[2,2], pads=[2,2,2,2]>(image, w1)
    a1 = Relu(y1)
    y2 = Conv<pads=[1,1,1,1]>(a1, w2)
    p2 = GlobalAveragePool(y2)
    f = Flatten(p2)
    scores = Gemm(f, w3)
}
"""


def run(*arguments: object) -> str:
    """Return what a command prints; it must not fail for bad input."""
    text = io.StringIO()
    before = sys.argv
    sys.argv = ["onnx-lowrank", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = before
    return text.getvalue()


@pytest.fixture(scope="session")
def printed() -> Callable[..., str]:
    return run


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    model = parser.parse_model(NET)
    for name, shape in (("w1", (16, 3, 5, 5)), ("w2", (16, 16, 3, 3)), ("w3", (16, 4))):
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    for node, name in zip(
        (n for n in model.graph.node if n.op_type in ("Conv", "Gemm")),
        ("conv1", EVIL, "fc"),
        strict=True,
    ):
        node.name = name
    path = tmp_path_factory.mktemp("report") / "net.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def runs(network: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by the kind of their run."""
    folder = tmp_path_factory.mktemp("runs")
    small = folder / "small.onnx"
    rng = np.random.default_rng(1)
    for name, samples in (("a", 40), ("b", 30)):
        images = rng.standard_normal((samples, 3, 12, 12)).astype(np.float32)
        np.savez(folder / f"{name}.npz", image=images, labels=rng.integers(0, 4, samples))
    data = ("--data", folder / "a.npz")
    commands: dict[str, tuple[object, ...]] = {
        "inspect": ("inspect", network),
        "cost": ("cost", network, "--layer", "*=channel:macs=0.5"),
        "compress": (
            *("compress", network, "-o", small, "--layer", "*=channel:macs=0.5"),
            "--keep-anyway",
        ),
        "verify": ("verify", network, small, *data),
        "profile": ("profile", network, "--compare", small, "--runs", 2, "--threads", 1),
        "bench": ("bench", network, small, "--seconds", 0.05, "--repeats", 8, "--threads", 1),
        "sweep": (
            *("sweep", network, "-o", folder / "sweep", "--scheme", "channel:macs=0.5"),
            *("--metric", "frobenius", *data),
        ),
        "search": (
            *("compress", network, "-o", folder / "fast.onnx", *data, "--calibrate"),
            *(folder / "b.npz", "--min-sqnr", 5, "--threads", 1, "--keep-anyway"),
        ),
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_LOWRANK_CACHE", str(folder / "cache"))
        for kind, command in commands.items():
            found[kind] = folder / f"{kind}.json"
            text = run(*command, "--json")
            json.loads(text)
            found[kind].write_text(text)
    return found
