"""Every lowering against the layer it replaces, in onnxruntime, at full rank."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.rewriting.lowering.pointwise import PointwiseForms, choose_forms
from onnx_lowrank.rewriting.lowering.standard import lower
from onnx_lowrank.schemes import SchemeSpec

C, F = 4, 6
FULL_RANK = {
    "bicluster-svd": "bicluster-svd:G=2,H=3,K1=2,K2=2",
    "bicluster-outer": "bicluster-outer:G=2,H=3,K=4",
}
FORMS = [PointwiseForms(a, b) for a in ("grouped", "dense") for b in ("grouped", "dense")]


def conv_model(
    weight: NDArray[np.float64],
    bias: NDArray[np.float64] | None,
    dtype: type[np.floating],
    size: tuple[int | str, ...],
    **attributes: object,
) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    initializers = [numpy_helper.from_array(weight.astype(dtype), "w")]
    if bias is not None:
        initializers.append(numpy_helper.from_array(bias.astype(dtype), "b"))
    node = helper.make_node(
        "Conv", ["x", *(t.name for t in initializers)], ["y"], name="conv", **attributes
    )
    outputs = ["N", weight.shape[0], *(f"d{i}" for i in range(len(size)))]
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", kind, ["N", weight.shape[1], *size])],
        [helper.make_tensor_value_info("y", kind, outputs)],
        initializers,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def run(model: onnx.ModelProto, x: NDArray[np.floating]) -> NDArray[np.float64]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0], np.float64)


def structured_weight(scheme: str, kernel: tuple[int, ...]) -> NDArray[np.float64]:
    """Random, except for mono, whose full rank is a weight of rank one per output."""
    rng = np.random.default_rng(3)
    if scheme != "mono":
        return rng.standard_normal((F, C, *kernel))
    colours = rng.standard_normal((3, C))[rng.permutation(np.arange(F) % 3)]
    filters = rng.standard_normal((F, *kernel))
    return colours.reshape(F, C, *(1,) * len(kernel)) * filters[:, None]


def lowered(model: onnx.ModelProto, spec: str, forms: PointwiseForms | None) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    editor, layer = GraphEditor(copy), find_layers(copy)[0]
    assert layer.spec is not None
    scheme = SchemeSpec.parse(spec).resolve(layer.spec)
    fit = scheme.fit(layer_weight(editor, layer), metric=Frobenius(), rng=np.random.default_rng(0))
    builder = SubgraphBuilder(layer.name, layer.dtype)
    lower(fit.factors, layer.spec, layer_bias(editor, layer), builder, forms=forms)
    editor.replace(layer.node, builder)
    editor.remove_dead()
    onnx.checker.check_model(copy, full_check=True)
    return copy


def assert_same(
    model: onnx.ModelProto, rewritten: onnx.ModelProto, x: NDArray[np.floating], terms: int
) -> None:
    """Compare in float: each product of the chain adds its own rounding."""
    expected, actual = run(model, x), run(rewritten, x)
    assert actual.shape == expected.shape
    # Four stages, sums of at most `terms` products each, of magnitudes that the factors may raise
    # above the result's by their conditioning (here below 30).
    bound = 4 * 30 * np.sqrt(terms) * np.finfo(x.dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


CASES = [
    pytest.param(
        scheme,
        axes,
        stride,
        dilation,
        padding,
        bias,
        id=f"{scheme}-{axes}d-s{stride}-d{dilation}-{padding}-b{bias:d}",
    )
    for scheme, axes, stride, dilation, padding, bias in itertools.product(
        ("mono", "bicluster-svd", "bicluster-outer"),
        (1, 2, 3),
        (1, 2),
        (1, 2),
        ("none", "asymmetric", "SAME_UPPER", "SAME_LOWER", "VALID"),
        (False, True),
    )
    # onnx does not define SAME with dilations in the same way everywhere; onnxruntime refuses it.
    if not (dilation > 1 and padding.startswith("SAME"))
]


@pytest.mark.parametrize(("scheme", "axes", "stride", "dilation", "padding", "bias"), CASES)
def test_full_rank_reproduces_the_layer(
    scheme: str, axes: int, stride: int, dilation: int, padding: str, bias: bool
) -> None:
    rng = np.random.default_rng(1)
    kernel = (3, 2, 2)[:axes] if axes > 1 else (3,)
    weight = structured_weight(scheme, kernel)
    attributes: dict[str, object] = {"strides": [stride] * axes, "dilations": [dilation] * axes}
    if padding == "asymmetric":
        attributes["pads"] = [*(1, 0, 2)[:axes], *(2, 1, 0)[:axes]]
    elif padding != "none":
        attributes["auto_pad"] = padding
    model = conv_model(
        weight,
        rng.standard_normal(F) if bias else None,
        np.float32,
        tuple(f"s{i}" for i in range(axes)),
        **attributes,
    )
    x = rng.standard_normal((2, C, *(9, 8, 7)[:axes])).astype(np.float32)
    spec = FULL_RANK.get(scheme, "mono:C=3")
    if scheme == "bicluster-outer":
        # A block's rank: the product of its two shortest sides, 2 x 2 (C / G, F / H) or more.
        taps = int(np.prod(kernel))
        spec = f"bicluster-outer:G=2,H=3,K={np.prod(sorted((2, 2, taps))[:2])}"
    forms = [None] if scheme == "mono" else FORMS
    for form in forms:
        assert_same(model, lowered(model, spec, form), x, terms=C * int(np.prod(kernel)))


@pytest.mark.parametrize("scheme", ["mono", *FULL_RANK])
def test_float16_layers_stay_float16(scheme: str) -> None:
    weight = structured_weight(scheme, (3, 3))
    model = conv_model(weight, np.ones(F), np.float16, (8, 8), pads=[1, 1, 1, 1])
    rewritten = lowered(model, FULL_RANK.get(scheme, "mono:C=3"), None)
    assert {t.data_type for t in rewritten.graph.initializer} <= {
        TensorProto.FLOAT16,
        TensorProto.INT64,
    }
    x = np.random.default_rng(2).standard_normal((1, C, 8, 8)).astype(np.float16)
    assert_same(model, rewritten, x, terms=9 * C)


def test_the_output_keeps_its_name_and_nothing_else_is_left() -> None:
    weight = structured_weight("bicluster-svd", (3, 3))
    model = conv_model(weight, None, np.float32, (8, 8))
    rewritten = lowered(model, FULL_RANK["bicluster-svd"], None)
    assert [o.name for o in rewritten.graph.output] == ["y"]
    assert rewritten.graph.node[-1].output[0] == "y"
    assert "w" not in {t.name for t in rewritten.graph.initializer}
    assert all(node.name.startswith("conv/") for node in rewritten.graph.node)


def test_a_permutation_is_gathered_only_where_no_stage_takes_it() -> None:
    weight = structured_weight("bicluster-svd", (3, 3))
    model = conv_model(weight, None, np.float32, (8, 8))

    def gathers(forms: PointwiseForms) -> int:
        nodes = lowered(model, FULL_RANK["bicluster-svd"], forms).graph.node
        return sum(node.op_type == "Gather" for node in nodes)

    assert gathers(PointwiseForms("dense", "dense")) == 0
    assert gathers(PointwiseForms("grouped", "dense")) <= 1
    assert gathers(PointwiseForms("grouped", "grouped")) <= 3


def test_small_groups_become_dense_and_large_ones_stay_grouped() -> None:
    def conv(c: int, f: int) -> ConvSpec:
        return ConvSpec(
            in_channels=c,
            out_channels=f,
            kernel=(3, 3),
            strides=(1, 1),
            dilations=(1, 1),
            pads=(1, 1, 1, 1),
            input_size=(28, 28),
            output_size=(28, 28),
        )

    small = choose_forms(conv(32, 32), input_blocks=2, output_blocks=2, first_rank=4, last_rank=4)
    assert small == PointwiseForms("dense", "dense")
    large = choose_forms(
        conv(2048, 2048), input_blocks=8, output_blocks=8, first_rank=64, last_rank=64
    )
    assert "grouped" in (large.first, large.last)
