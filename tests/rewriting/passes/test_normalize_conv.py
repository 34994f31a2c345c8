from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from builders import conv_model, run, without

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.rewriting.passes.base import PassResult, Refusal
from onnx_lowrank.rewriting.passes.normalize_conv import NormalizeConvPass

RNG = np.random.default_rng(0)


def normalise(model: onnx.ModelProto) -> PassResult:
    """Run the pass; the model is valid after it, and a second run changes nothing."""
    rest = without(model, "node")
    first = NormalizeConvPass(["conv"]).run(model)
    check_model(model)
    once = model.SerializeToString(deterministic=True)
    second = NormalizeConvPass(["conv"]).run(model)
    assert second == PassResult(False, (), first.refusals)
    assert model.SerializeToString(deterministic=True) == once
    assert without(model, "node") == rest
    return first


def attributes(model: onnx.ModelProto) -> dict[str, Any]:
    node = model.graph.node[0]
    return {each.name: attribute(node, each.name, None) for each in node.attribute}


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_defaults_are_written_out(axes: int) -> None:
    model = conv_model(RNG.standard_normal((4, 3, *(3,) * axes)))
    assert attributes(model) == {}
    assert normalise(model).changes == ("conv: attributes written out",)
    assert attributes(model) == {
        "kernel_shape": [3] * axes,
        "strides": [1] * axes,
        "dilations": [1] * axes,
        "group": 1,
        "pads": [0] * 2 * axes,
    }


def test_what_is_given_is_kept() -> None:
    given: dict[str, Any] = {
        "strides": [2, 1],
        "dilations": [1, 2],
        "pads": [1, 2, 3, 4],
        "group": 3,
    }
    model = conv_model(RNG.standard_normal((6, 1, 3, 5)), **given, kernel_shape=[3, 5])
    before = model.SerializeToString(deterministic=True)
    assert normalise(model) == PassResult(False)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("auto_pad", ["VALID", "SAME_UPPER", "SAME_LOWER"])
def test_explicit_pads_compute_the_same(auto_pad: str, axes: int) -> None:
    """Over strides, kernels and sizes; the same sums, so equal to the last bit."""
    for stride, kernel, size in itertools.product([1, 2, 3], [1, 2, 3, 4, 5], range(7, 13)):
        model = conv_model(
            RNG.standard_normal((2, 3, *(kernel,) * axes)),
            strides=[stride] * axes,
            auto_pad=auto_pad,
            input_shape=("N", 3, *(size,) * axes),
        )
        x = RNG.standard_normal((1, 3, *(size,) * axes)).astype(np.float32)
        expected = run(model, {"x": x})[0]
        result = normalise(model)
        assert result.modified
        assert not result.refusals
        assert "auto_pad" not in attributes(model)
        np.testing.assert_array_equal(run(model, {"x": x})[0], expected)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_stride_one_needs_no_size(auto_pad: str) -> None:
    model = conv_model(
        RNG.standard_normal((2, 3, 4, 3)), auto_pad=auto_pad, input_shape=("N", 3, "H", "W")
    )
    feeds = [{"x": RNG.standard_normal((1, 3, h, 8)).astype(np.float32)} for h in (1, 5, 8)]
    expected = [run(model, feed)[0] for feed in feeds]
    assert normalise(model).modified
    odd = [1, 1, 2, 1] if auto_pad == "SAME_UPPER" else [2, 1, 1, 1]
    assert attributes(model)["pads"] == odd
    for feed, each in zip(feeds, expected, strict=True):
        np.testing.assert_array_equal(run(model, feed)[0], each)


def test_dilation_counts_as_extent() -> None:
    """The runtime refuses SAME with dilations; explicit pads it takes."""
    model = conv_model(RNG.standard_normal((2, 3, 3, 3)), auto_pad="SAME_UPPER", dilations=[2, 3])
    assert normalise(model).modified
    assert attributes(model)["pads"] == [2, 3, 2, 3]
    x = RNG.standard_normal((1, 3, 9, 9)).astype(np.float32)
    assert run(model, {"x": x})[0].shape == (1, 2, 9, 9)


def test_pads_that_depend_on_the_input_are_refused() -> None:
    model = conv_model(
        RNG.standard_normal((2, 3, 3, 3)),
        auto_pad="SAME_LOWER",
        strides=[2, 2],
        input_shape=("N", 3, "H", 9),
    )
    result = normalise(model)
    reason = "SAME_LOWER stays: its pads depend on the input size, which the model leaves open"
    assert result.refusals == (Refusal("conv", reason),)
    assert result.changes == ("conv: attributes written out",)
    found = attributes(model)
    assert found["auto_pad"] == "SAME_LOWER"
    assert "pads" not in found
    assert found["kernel_shape"] == [3, 3]


def test_layers_not_selected_are_untouched() -> None:
    model = conv_model(RNG.standard_normal((2, 3, 3, 3)), auto_pad="VALID")
    before = model.SerializeToString(deterministic=True)
    for layers in ([], ["y"], ["other"]):
        assert NormalizeConvPass(layers).run(model) == PassResult(False)
    assert model.SerializeToString(deterministic=True) == before
