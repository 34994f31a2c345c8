from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime import open_session
from onnx_lowrank.runtime.int8 import MIN_OPSET, quantise

Build = Callable[..., onnx.ModelProto]


def _feeds(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("opset", [9, 13])
def test_quantised_per_channel_and_close(
    residual_net: Build, tmp_path: Path, opset: int, capfd: pytest.CaptureFixture[str]
) -> None:
    model = residual_net()
    model.opset_import[0].version = opset
    before = model.SerializeToString()
    path = tmp_path / "int8.onnx"
    level = logging.getLogger().level
    quantise(model, path, _feeds(8))
    assert model.SerializeToString() == before
    assert logging.getLogger().level == level
    assert capfd.readouterr() == ("", "")

    quantised = onnx.load(path)
    assert {o.domain: o.version for o in quantised.opset_import}[""] >= MIN_OPSET
    tensors = {t.name: t for t in quantised.graph.initializer}
    weights = [
        tensors[n.input[0]]
        for n in quantised.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in tensors
    ]
    convs = [t for t in weights if len(t.dims) == 4]
    assert {t.data_type for t in convs} == {onnx.TensorProto.INT8}
    scales = {
        n.input[0]: tensors[n.input[1]].dims
        for n in quantised.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in tensors
    }
    assert all(list(scales[t.name]) == [t.dims[0]] for t in convs)

    feeds = _feeds(1)[0]
    a = open_session(model, threads=1).run(feeds)["scores"].astype(float)
    b = open_session(path, threads=1).run(feeds)["scores"].astype(float)
    # Eight bits round by a 1/256 of the range: some 40 dB for each of a handful of layers.
    assert 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()) > 20
    assert not np.array_equal(a, b)


def test_a_model_that_cannot_be_quantised_is_one_sentence(tmp_path: Path) -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[2] image) => (float[2] y) { y = Nonesuch(image) }
        """
    )
    with pytest.raises(ModelError, match="cannot quantise the model") as caught:
        quantise(model, tmp_path / "int8.onnx", _feeds(1))
    assert "\n" not in str(caught.value)
