"""Patches: a layer's output is its weight times them, whatever the geometry."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import DataError
from onnx_lowrank.metrics.patches import choose_positions, extract_patches, output_size

# kernel, strides, dilations, pads, auto_pad, group, input size
GEOMETRIES = [
    ((3,), (1,), (1,), (0, 0), "NOTSET", 1, (7,)),
    ((3,), (2,), (2,), (1, 2), "NOTSET", 2, (11,)),
    ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), "NOTSET", 1, (4, 5)),
    ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), "NOTSET", 1, (6, 5)),
    ((3, 2), (2, 1), (1, 2), (2, 0, 1, 3), "NOTSET", 1, (9, 8)),
    ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), "NOTSET", 4, (5, 5)),
    ((5, 4), (2, 3), (1, 1), (0, 0, 0, 0), "SAME_UPPER", 1, (9, 10)),
    ((4, 5), (2, 3), (1, 1), (0, 0, 0, 0), "SAME_LOWER", 2, (10, 9)),
    ((3, 3), (2, 2), (1, 1), (0, 0, 0, 0), "VALID", 1, (8, 7)),
    ((2, 3, 2), (1, 2, 1), (2, 1, 1), (1, 0, 1, 0, 1, 1), "NOTSET", 2, (5, 6, 4)),
]


def spec(geometry: tuple[object, ...]) -> ConvSpec:
    kernel, strides, dilations, pads, auto_pad, group, _ = geometry
    return ConvSpec(
        in_channels=4,
        out_channels=8,
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        group=group,
    )


def reference(conv: ConvSpec, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The Conv as onnx's own evaluator computes it, in float64."""
    placed = {"pads": conv.pads} if conv.auto_pad == "NOTSET" else {"auto_pad": conv.auto_pad}
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=conv.strides,
        dilations=conv.dilations,
        group=conv.group,
        **placed,
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in ("x", "w")],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return ReferenceEvaluator(model).run(None, {"x": x, "w": weight})[0]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_weight_times_the_patches_is_the_output(geometry: tuple[object, ...]) -> None:
    conv, size = spec(geometry), geometry[-1]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, *size))
    weight = rng.standard_normal(conv.weight_shape)
    expected = reference(conv, x, weight)[0]
    assert output_size(conv, size) == expected.shape[1:]
    positions = np.arange(expected[0].size)
    patches = extract_patches(x[0], conv, positions)
    assert patches.shape == (conv.group, len(positions), conv.in_channels // conv.group * conv.taps)
    matrix = weight.reshape(conv.group, 8 // conv.group, -1)
    got = (matrix @ patches.swapaxes(1, 2)).reshape(8, -1)
    # Both sum at most 48 products of magnitude below 20 in float64: 48 * 2^-53 * 48 * 20 < 1e-11.
    np.testing.assert_allclose(got, expected.reshape(8, -1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_some_positions_are_rows_of_all(geometry: tuple[object, ...]) -> None:
    conv, size = spec(geometry), geometry[-1]
    image = np.random.default_rng(1).standard_normal((4, *size)).astype(np.float32)
    count = int(np.prod(output_size(conv, size)))
    every = extract_patches(image, conv, np.arange(count))
    some = choose_positions(count, 3, np.random.default_rng(2))
    np.testing.assert_array_equal(extract_patches(image, conv, some), every[:, some])


def test_positions_are_all_or_distinct_and_evenly_drawn() -> None:
    np.testing.assert_array_equal(choose_positions(5, 5, np.random.default_rng(0)), [0, 1, 2, 3, 4])
    draws = [choose_positions(10, 4, np.random.default_rng(seed)) for seed in range(1000)]
    assert all(len(set(d)) == 4 and sorted(d) == list(d) for d in draws)
    counts = np.bincount(np.concatenate(draws), minlength=10)
    # Binomial with n = 1000, p = 0.4: standard deviation 15.5; five of them.
    assert np.abs(counts - 400).max() < 78


def test_an_input_smaller_than_the_kernel_is_refused() -> None:
    conv = spec(GEOMETRIES[2])
    small = spec(((3, 3), (1, 1), (1, 1), (0, 0, 0, 0), "NOTSET", 1, None))
    assert output_size(conv, (1, 1)) == (1, 1)
    with pytest.raises(DataError, match=r"size \[2, 5\] is too small for the kernel \[3, 3\]"):
        output_size(small, (2, 5))
