from __future__ import annotations

import pytest

from onnx_lowrank.conv import ConvSpec, Window

CONV = ConvSpec(
    in_channels=4,
    out_channels=6,
    kernel=(3, 5),
    strides=(2, 3),
    dilations=(4, 5),
    pads=(1, 2, 3, 4),
    auto_pad="SAME_UPPER",
)


def test_the_window_of_a_layer_is_its_own() -> None:
    window = Window(strides=(2, 3), dilations=(4, 5), pads=(1, 2, 3, 4), auto_pad="SAME_UPPER")
    assert CONV.window == window
    assert window.along([True, True]) == window


def test_along_one_axis_the_other_has_the_defaults() -> None:
    first, second = CONV.window.along([True, False]), CONV.window.along([False, True])
    assert (first.strides, first.dilations, first.pads) == ((2, 1), (4, 1), (1, 0, 3, 0))
    assert (second.strides, second.dilations, second.pads) == ((1, 3), (1, 5), (0, 2, 0, 4))
    assert first.auto_pad == second.auto_pad == "SAME_UPPER"


@pytest.mark.parametrize("axes", [0, 1, 2, 3])
def test_ones_are_the_defaults_of_onnx(axes: int) -> None:
    window = Window.of_ones(axes)
    assert window.strides == window.dilations == (1,) * axes
    assert (window.pads, window.auto_pad) == ((0,) * 2 * axes, "NOTSET")
