from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime import open_session
from onnx_lowrank.runtime.runner import OrtRunner

Build = Callable[..., onnx.ModelProto]


def _image(batch: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.standard_normal((batch, 3, 32, 32)).astype(np.float32)}


def test_outputs_are_those_of_a_plain_session(residual_net: Build) -> None:
    model, feeds = residual_net("N"), _image(5)
    runner = OrtRunner(model, feeds, threads=1)
    runner.run()
    first = runner.outputs()
    runner.run()
    expected = open_session(model, threads=1).run(feeds)
    np.testing.assert_array_equal(first["scores"], expected["scores"])
    np.testing.assert_array_equal(runner.outputs()["scores"], expected["scores"])


def test_outputs_are_copies(residual_net: Build) -> None:
    runner = OrtRunner(residual_net(), _image(), threads=1)
    runner.run()
    first = runner.outputs()["scores"]
    kept = first.copy()
    first[:] = 7
    runner.run()
    np.testing.assert_array_equal(runner.outputs()["scores"], kept)


def test_an_input_that_does_not_fit_is_one_sentence(residual_net: Build) -> None:
    wrong = {"image": np.zeros((1, 4, 32, 32), np.float32)}
    with pytest.raises(ModelError, match="check that the inputs fit the model") as caught:
        OrtRunner(residual_net(), wrong).run()
    assert "\n" not in str(caught.value)


def test_an_output_that_is_no_tensor_is_refused() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }
        """
    )
    with pytest.raises(ModelError, match=r"output 'y' is a seq\(tensor\(float\)\)"):
        OrtRunner(model, {"x": np.zeros(2, np.float32)})


def test_options_reach_the_session(residual_net: Build, tmp_path: Path) -> None:
    target = tmp_path / "optimised.onnx"

    def configure(options: object) -> None:
        options.optimized_model_filepath = str(target)  # type: ignore[attr-defined]

    OrtRunner(residual_net(), _image(), configure=configure)
    assert onnx.load(target).graph.node
