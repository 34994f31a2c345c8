"""Every command says what was repaired in a model when it was read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_lowrank.errors import RepairWarning
from onnx_lowrank.pipelines.inspect import inspect

Cli = Callable[..., Any]
LAYER = ("--layer", "conv2=tucker2:R1=4,R2=4")
DATA = ("--data", "a.npz", "--limit", "8")
TRAIN = ("--data", "a.npz", "--val", "b.npz", "--epochs", "1", "-o", "new.onnx")
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "stale.onnx"),
    "cost": ("cost", "stale.onnx", *LAYER),
    "sweep": ("sweep", "stale.onnx", "-o", "results", "--scheme", "channel:R=4", *DATA),
    "bench": ("bench", "stale.onnx", "--seconds", "0.1", "--repeats", "8"),
    "latencies": ("bench", "stale.onnx", "--save-latency", "table.json"),
    "profile": ("profile", "stale.onnx"),
    "correct": ("correct", "stale.onnx", "small.onnx", *DATA, "-o", "new.onnx"),
    "finetune": ("finetune", "stale.onnx", "small.onnx", *TRAIN),
    "cascade": ("cascade", "stale.onnx", *LAYER, *TRAIN),
    "report": ("report", "run.json", "-o", "page.html", "--model", "stale.onnx"),
}


@pytest.fixture
def place(tmp_path: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Path:
    """Give a working folder with a model that notes a wrong shape, a sound one of it, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(tmp_path / "cache"))
    onnx.save(onnx.load(classifier), "net.onnx")
    model = onnx.load(classifier)
    wrong = helper.make_tensor_value_info("y1", onnx.TensorProto.FLOAT, ["N", 16, 5, 5])
    model.graph.value_info.append(wrong)
    onnx.save(model, "stale.onnx")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        image = rng.standard_normal((16, 3, 12, 12)).astype(np.float32)
        np.savez(f"{name}.npz", image=image, labels=np.arange(16) % 4)
    cli("compress", "net.onnx", "-o", "small.onnx", *LAYER, "--keep-anyway", "--quiet")
    Path("run.json").write_text(cli("inspect", "net.onnx", "--json").out)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_repairs_are_notes(place: Path, cli: Cli, name: str) -> None:
    if name in ("finetune", "cascade"):
        pytest.importorskip("torch")
    if name in ("report", "sweep"):
        pytest.importorskip("matplotlib")
    result = cli(*COMMANDS[name])
    assert result.code == 0, result.err
    (line,) = result.err.splitlines()
    assert line.startswith("note: ")
    assert "'y1'" in line
    assert ("the original: " in line) == (name in ("correct", "finetune"))
    assert ("stale.onnx: " in line) == (name in ("bench", "profile"))


def test_notes_leave_json_alone_and_obey_quiet(place: Path, cli: Cli) -> None:
    found = cli("inspect", "stale.onnx", "--json")
    assert len(json.loads(found.out)["layers"]) == 3
    assert found.err.count("\n") == 1
    assert cli("inspect", "stale.onnx", "--quiet").err == ""
    assert cli("inspect", "net.onnx").err == ""


def test_the_library_warns_of_repairs(place: Path) -> None:
    with pytest.warns(RepairWarning, match="'y1'"):
        inspect("stale.onnx")
