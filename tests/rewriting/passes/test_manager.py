from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import conv_model

from onnx_lowrank.errors import ModelError
from onnx_lowrank.rewriting.passes.base import Pass, PassManager, PassResult, Refusal
from onnx_lowrank.rewriting.passes.fold_constants import FoldConstantsPass
from onnx_lowrank.rewriting.passes.normalize_conv import NormalizeConvPass


class SpoilPass:
    """Names an output that no node writes."""

    name = "spoil"

    def run(self, model: onnx.ModelProto) -> PassResult:
        model.graph.output[0].name = "nowhere"
        return PassResult(True, ("spoilt",), (Refusal("x", "because"),))


def test_results_are_joined_and_a_manager_is_a_pass() -> None:
    model = conv_model(np.ones((4, 3, 3, 3)))
    inner: Pass = PassManager([FoldConstantsPass(["conv"])])
    outer = PassManager([inner, NormalizeConvPass(["conv"])], verify=True)
    result = outer.run(model)
    assert result == PassResult(True, ("conv: attributes written out",), ())
    assert outer.run(model) == PassResult(False)
    assert PassManager([]).run(model) == PassResult(False)
    assert PassManager([SpoilPass()]).run(model).refusals == (Refusal("x", "because"),)


def test_verification_names_the_pass_that_broke_the_model() -> None:
    model = conv_model(np.ones((4, 3, 3, 3)))
    passes: list[Pass] = [NormalizeConvPass(["conv"]), SpoilPass(), FoldConstantsPass(["conv"])]
    with pytest.raises(ModelError, match=r"^after pass spoil: the model is not valid ONNX"):
        PassManager(passes, verify=True).run(model)
