from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime.profile import Recorder, read_events

Build = Callable[..., onnx.ModelProto]


def _node(name: str, op: str, begin: int, length: int) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": begin,
        "dur": length,
        "args": {"op_name": op, "provider": "CPUExecutionProvider"},
    }


def _run(begin: int, length: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": begin, "dur": length, "args": {}}


def test_events_of_the_counted_runs() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 90, "args": {}},
        _node("a", "Conv", 101, 50),
        _node("b", "Relu", 152, 10),
        _run(100, 70),
        _node("a", "Conv", 201, 20),
        _run(200, 40),
        _node("a", "Conv", 301, 30),
        _node("b", "Relu", 331, 5),
        _run(300, 40),
    ]
    nodes, walls = read_events(events, counted=[1, 2])
    assert [(n.name, n.op, n.provider) for n in nodes] == [
        ("a", "Conv", "CPUExecutionProvider"),
        ("b", "Relu", "CPUExecutionProvider"),
    ]
    np.testing.assert_allclose(nodes[0].seconds, [20e-6, 30e-6])
    np.testing.assert_allclose(nodes[1].seconds, [0, 5e-6])
    np.testing.assert_allclose(walls, [40e-6, 40e-6])


def test_nodes_inside_a_body_are_not_counted_twice() -> None:
    events = [
        _node("inner", "Relu", 112, 5),
        _node("inner", "Relu", 120, 5),
        _node("loop", "Loop", 110, 30),
        _node("after", "Relu", 140, 2),
        _run(100, 50),
    ]
    nodes, _ = read_events(events, counted=[0])
    assert [n.name for n in nodes] == ["loop", "after"]


def test_a_profile_without_runs() -> None:
    with pytest.raises(ModelError, match="has no run"):
        read_events([], counted=[0])
    with pytest.raises(ModelError, match="has no run"):
        read_events([_run(0, 1)], counted=[1])


def test_a_profile_of_another_form() -> None:
    event = _node("a", "Conv", 1, 1)
    del event["args"]["op_name"]
    with pytest.raises(ModelError, match=r"another form than expected \(KeyError\('op_name'\)\)"):
        read_events([event, _run(0, 5)], counted=[0])


def test_a_real_model_is_recorded(residual_net: Build) -> None:
    model = residual_net(4)
    image = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    recorder = Recorder(model, {"image": image}, threads=1)
    for _ in range(5):
        recorder.run()
    recording = recorder.close()
    assert recording.wall.shape == recording.profiled_wall.shape == (5,)
    executed = {node.name for node in recording.nodes}
    graph_nodes = {node.name for node in recording.optimised.node}
    assert executed == graph_nodes
    total = np.sum([node.seconds for node in recording.nodes], axis=0)
    # Nodes run one after the other inside a run; their times are rounded down.
    assert (total > 0).all()
    assert (total <= recording.profiled_wall).all()
    assert {node.provider for node in recording.nodes} == {"CPUExecutionProvider"}


def test_the_body_of_an_if_counts_as_the_if() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[64,64] x, bool c) => (float[64,64] y) {
            [choose] y = If(c) <
                then_branch = yes () => (float[64,64] t) { [inner] t = MatMul(x, x) },
                else_branch = no () => (float[64,64] e) { e = Abs(x) }
            >
        }
        """
    )
    feeds = {"x": np.ones((64, 64), np.float32), "c": np.array(True)}
    recorder = Recorder(model, feeds, threads=1)
    recorder.run()
    recording = recorder.close()
    assert [(n.name, n.op) for n in recording.nodes] == [("choose", "If")]


def test_nothing_is_left_behind(
    residual_net: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(residual_net(), {"image": np.zeros((1, 3, 32, 32), np.float32)})
    recorder.run()
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_profile(residual_net: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(residual_net(), {"image": np.zeros((1, 3, 32, 32), np.float32)})
    recorder.run()

    def broken(text: str) -> None:
        raise json.JSONDecodeError("cut short", text, 0)

    monkeypatch.setattr("onnx_lowrank.runtime.profile.json.loads", broken)
    with pytest.raises(ModelError, match="make room for temporary files"):
        recorder.close()
