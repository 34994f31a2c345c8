"""What is true of OpenVINO alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import parser

from onnx_lowrank.errors import ModelError, PlanError, ProviderError
from onnx_lowrank.rewriting.forms import PORTABLE, STANDARD, allowed_forms, default_form
from onnx_lowrank.runtime.engines import ENGINES, OpenVinoEngine, statistics_note

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    message = r"OpenVINO is not installed; pip install 'onnx_lowrank\[openvino\]'"
    with pytest.raises(ProviderError, match=message):
        OpenVinoEngine().require()
    with pytest.raises(ProviderError, match=message):
        OpenVinoEngine().runner(parser.parse_model(HEAD + "net (float x) => (float x) {}"), {})


def test_integers_beyond_32_bits_are_refused() -> None:
    pytest.importorskip("openvino")
    model = parser.parse_model(HEAD + "net (int64[N] i) => (int64[N] j) { j = Neg(i) }")
    loaded = OpenVinoEngine(1).load(model)
    most = np.array([2**31 - 1, -(2**31)])
    np.testing.assert_array_equal(loaded.run({"i": most[:1]})["j"], -most[:1])
    for feeds in ({"i": most + 1}, {"i": most - 1}):
        with pytest.raises(ModelError, match="integers beyond 32 bits"):
            loaded.run(feeds)
        with pytest.raises(ModelError, match="integers beyond 32 bits"):
            OpenVinoEngine(1).runner(model, feeds)


def test_an_op_that_it_does_not_know_is_named() -> None:
    pytest.importorskip("openvino")
    model = parser.parse_model(
        HEAD + "net (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }"
    )
    with pytest.raises(ModelError, match=r"operations: .*Sequence"):
        OpenVinoEngine().load(model)


def test_layers_become_portable_nodes_where_the_engine_runs_them() -> None:
    engine = OpenVinoEngine()
    assert default_form("auto", engine) is STANDARD
    assert allowed_forms("auto", engine) == (STANDARD,)
    with pytest.raises(PlanError, match="openvino does not run portable nodes; take --lowering st"):
        default_form("portable", engine)
    assert default_form("portable", ENGINES["cpu"]) is PORTABLE


def test_where_statistics_were_taken_is_said() -> None:
    assert statistics_note(ENGINES["cuda"]) == ()
    (note,) = statistics_note(OpenVinoEngine())
    assert "in onnxruntime on CPU" in note
