"""A model whose every name is hostile, through the commands: text comes out, and nothing else."""

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
from onnx import helper, numpy_helper

from onnx_lowrank.cli import main

HOSTILE = {
    "terminal": "[/red][bold]\x1b[2J\x1b]8;;http://x\x07\0\x7f\x9b\n\r\t:smile:%s{}",
    "page": "</text><script>alert(1)</script>\"'><img src=x onerror=y>$\\frac$&amp;]]>--",
    "unicode": "\u202e\u2066\u200b\u2028\ufeff\u0085\U000e0041\u5c64\ufffe",
    "sheet": "=cmd|'/c calc'!A1,\"|`*[x](y)",
    "long": "n" * 30_000 + " " + "m" * 30_000,
}


def network(text: str, path: Path) -> None:
    """Write a network in which whatever can have a name or a description has a hostile one."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 3, 5, 5), "w2": (16, 16, 3, 3), "w3": (16, 4)}
    w1, w2, w3 = (text + name for name in shapes)
    x, a, r, b, p, f, y = (text + name for name in "xarbpfy")
    nodes = [
        helper.make_node("Conv", [x, w1], [a], text + "conv1", strides=[2, 2]),
        helper.make_node("Relu", [a], [r], text + "relu"),
        helper.make_node("Conv", [r, w2], [b], text + "conv2", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", [b], [p], text + "pool"),
        helper.make_node("Flatten", [p], [f], text + "flat"),
        helper.make_node("Gemm", [f, w3], [y], text + "fc"),
    ]
    for node in nodes:
        node.doc_string = text
    graph = helper.make_graph(
        nodes,
        text,
        [helper.make_tensor_value_info(x, 1, [text + "N", 3, 12, 12])],
        [helper.make_tensor_value_info(y, 1, [text + "N", 4])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), text + name)
            for name, shape in shapes.items()
        ],
        doc_string=text,
    )
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)], producer_name=text
    )
    helper.set_model_props(model, {text: text})
    onnx.save(model, path)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Give a function that runs a command, checks what it prints, and returns stdout."""

    def run(*arguments: str, codes: tuple[int, ...] = (0, 1)) -> str:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["onnx-lowrank", *arguments])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        assert ended.value.code in codes, err.getvalue()
        for text in (out.getvalue(), err.getvalue()):
            assert text.replace("\n", "").isprintable()
            assert "Traceback" not in text
        return out.getvalue()

    return run


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_names_are_text_everywhere(
    kind: str, cli: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HOSTILE[kind]
    monkeypatch.chdir(tmp_path)
    network(text, tmp_path / "net.onnx")
    # A file name holds no NUL and no slash, and 255 bytes.
    stem = text.replace("\0", "").replace("/", "")[:30]
    small = f"{stem}.onnx"
    rng = np.random.default_rng(1)
    images = rng.standard_normal((20, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=images, labels=rng.integers(0, 4, 20))
    layers, data = ("--layer", "*=channel:macs=0.5"), ("--data", "x.npz")
    commands = {
        "inspect": ("inspect", "net.onnx"),
        "cost": ("cost", "net.onnx", *layers),
        "compress": (
            "compress",
            "net.onnx",
            "-o",
            small,
            *layers,
            "--save-plan",
            "plan.json",
            "--keep-anyway",
        ),
        "verify": ("verify", "net.onnx", small, *data),
        "profile": ("profile", "net.onnx", "--compare", small, "--runs", "2"),
        "bench": ("bench", "net.onnx", small, "--seconds", "0.01", "--repeats", "8"),
        "sweep": ("sweep", "net.onnx", "-o", "swept", "--scheme", "channel:macs=0.5", *data),
    }
    runs = []
    for name, command in commands.items():
        printed = cli(*command)
        assert max(map(len, printed.split("\n"))) < 8_000
        path = f"{stem}-{name}.json"
        Path(path).write_text(cli(*command, "--json"))
        runs.append(path)
    # JSON is exact: a plan of all layers by their names is read again.
    names = [each["name"] for each in json.loads(Path(runs[0]).read_text())["layers"]]
    assert names == [text + name for name in ("conv1", "conv2", "fc")]
    cli("cost", "net.onnx", "--plan", "plan.json")
    cli("cost", "net.onnx", "--layer", f"{text}=mono:C=2", codes=(2,))
    cli("inspect", f"{stem}-no.onnx", codes=(2,))

    page = f"{stem}.html"
    cli("report", *runs, "-o", page, "--model", "net.onnx", "--title", text.replace("\0", ""))
    content = Path(page).read_text(encoding="utf-8")
    assert "<script" not in content
    assert "<img" not in content
    for each in (content, *(Path("swept", n).read_text() for n in ("sweep.csv", "tables.md"))):
        assert each.replace("\n", "").isprintable()
    for line in Path("swept/sweep.csv").read_text().splitlines():
        assert not line.startswith(("=", "+", "-", "@", '"='))
