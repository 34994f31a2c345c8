"""Portable nodes, run by their bodies, against the standard lowering of the same factors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from builders import conv_model, run, text_model
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.rewriting.form import Form, Replacement
from onnx_lowrank.rewriting.forms import PORTABLE, STANDARD
from onnx_lowrank.rewriting.passes.base import PassResult
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.passes.replace_layers import ReplaceLayersPass
from onnx_lowrank.schemes import SchemeSpec

C, F = 4, 6
OPS = {
    "mono:C=3": "MonochromaticConv",
    "tucker2:R1=3,R2=2": "Tucker2Conv",
    "bicluster-svd:G=2,H=3,K1=2,K2=1": "Tucker2Conv",
    "cp:R=5": "CPConv",
    "bicluster-outer:G=2,H=3,K=2": "CPConv",
}


def random(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def compress(
    model: onnx.ModelProto, specs: dict[str, str], *, portable: bool
) -> tuple[onnx.ModelProto, PassResult]:
    """Replace layers; the same fit for both lowerings."""
    prepared, _ = normalised(model, specs)
    editor = GraphEditor(prepared)
    form: Form = PORTABLE if portable else STANDARD
    replacements = {}
    for layer in find_layers(prepared):
        if layer.name in specs:
            assert layer.spec is not None
            scheme = SchemeSpec.parse(specs[layer.name]).resolve(layer.spec)
            fit = scheme.fit(
                layer_weight(editor, layer), metric=Frobenius(), rng=np.random.default_rng(0)
            )
            bias = layer_bias(editor, layer)
            replacements[layer.name] = Replacement(fit.factors, bias, form)
    copy = onnx.ModelProto()
    copy.CopyFrom(prepared)
    result = ReplaceLayersPass(replacements).run(copy)
    check_model(copy)
    onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    return copy, result


def assert_same(
    standard: onnx.ModelProto, portable: onnx.ModelProto, x: NDArray[np.float32], terms: int
) -> None:
    """Three stages of sums of at most `terms` float32 products each, in another order."""
    for expected, actual in zip(
        run(standard, {"x": x}), run(portable, {"x": x}, optimise=True), strict=True
    ):
        bound = 3 * np.sqrt(terms) * 30 * np.finfo(np.float32).eps * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


CASES = [
    pytest.param(spec, *rest, id="-".join(map(str, (spec, *rest))))
    for spec, *rest in itertools.product(
        OPS, (1, 2), (1, 2), (1, 2), ("none", "asymmetric", "SAME_UPPER", "VALID"), (False, True)
    )
    # SAME with a stride needs a fixed input size, with dilations it is not defined alike anywhere.
    if not (rest[3] == "SAME_UPPER" and (rest[1] > 1 or rest[2] > 1))
]


@pytest.mark.parametrize(("spec", "axes", "stride", "dilation", "padding", "bias"), CASES)
def test_the_body_computes_what_the_standard_lowering_does(
    spec: str, axes: int, stride: int, dilation: int, padding: str, bias: bool
) -> None:
    given: dict[str, Any] = {"strides": [stride] * axes, "dilations": [dilation] * axes}
    if padding == "asymmetric":
        given["pads"] = [*(1, 0)[:axes], *(2, 1)[:axes]]
    elif padding != "none":
        given["auto_pad"] = padding
    weight = random((F, C, *(3, 2)[:axes]))
    model = conv_model(
        weight,
        random((F,), 1) if bias else None,
        input_shape=("N", C, *(f"s{i}" for i in range(axes))),
        **given,
    )
    x = random((2, C, *(9, 8)[:axes]), 2).astype(np.float32)
    standard, _ = compress(model, {"conv": spec}, portable=False)
    portable, result = compress(model, {"conv": spec}, portable=True)
    assert [(n.domain, n.op_type) for n in portable.graph.node] == [("onnx_lowrank", OPS[spec])]
    assert result.refusals == ()
    assert_same(standard, portable, x, terms=C * weight[0, 0].size)


@pytest.mark.parametrize(
    ("ir_version", "opset"),
    [(3, 7), (3, 9), (4, 9), (5, 10), (6, 11), (7, 12), (8, 15), (9, 19), (10, 22)],
)
@pytest.mark.parametrize("spec", OPS)
def test_opsets_and_irs_of_all_ages(spec: str, ir_version: int, opset: int) -> None:
    model = conv_model(random((F, C, 3, 3)), random((F,), 1), ir_version=ir_version, opset=opset)
    standard, _ = compress(model, {"conv": spec}, portable=False)
    portable, _ = compress(model, {"conv": spec}, portable=True)
    assert portable.ir_version == max(ir_version, 8)
    assert [i.name for i in portable.graph.input] == ["x"]
    x = random((2, C, 9, 9), 2).astype(np.float32)
    assert_same(standard, portable, x, terms=9 * C)
    if opset >= 12:  # onnx's evaluator cannot link the attributes that older bodies need
        (reference,) = ReferenceEvaluator(portable).run(None, {"x": x})
        assert_close = np.abs(reference - run(standard, {"x": x})[0]).max()
        assert assert_close < 3 * 30 * 6 * np.finfo(np.float32).eps * np.abs(reference).max()


def test_layers_of_different_shapes_and_attributes_share_one_function() -> None:
    """Five layers, two ops: strides, pads, groups and ranks are each node's own."""
    text = """net (float[N,4,24,24] x) => (float[N,4,h,w] y) {
        [l0] a = Conv<pads=[1,1,1,1]>(x, w0)
        r = Relu(a)
        [l1] b = Conv<strides=[2,2]>(r, w1)
        [l2] c = Conv<dilations=[2,2], pads=[2,2,2,2]>(b, w2)
        [l3] d = Conv<strides=[1,2]>(c, w3, b3)
        [l4] y = Conv(d, w4)
    }"""
    shapes = [(6, 4, 3, 3), (8, 6, 5, 5), (8, 8, 3, 3), (6, 8, 3, 1), (4, 6, 2, 2)]
    weights = {f"w{i}": random(s, i).astype(np.float32) / 8 for i, s in enumerate(shapes)}
    weights["b3"] = random((6,), 9).astype(np.float32)
    specs = {
        "l0": "tucker2:R1=3,R2=5",
        "l1": "bicluster-svd:G=2,H=4,K1=3,K2=2",
        "l2": "bicluster-outer:G=4,H=2,K=3",
        "l3": "cp:R=7",
        "l4": "bicluster-svd:G=3,H=2,K1=2,K2=2",
    }
    model = text_model(text, weights)
    standard, _ = compress(model, specs, portable=False)
    portable, _ = compress(model, specs, portable=True)
    assert sorted(f.name for f in portable.functions) == ["CPConv", "Tucker2Conv"]
    assert_same(standard, portable, random((2, 4, 24, 24)).astype(np.float32), terms=8 * 25)


def test_a_second_compression_keeps_the_functions_of_the_first() -> None:
    text = """net (float[N,4,9,9] x) => (float[N,6,h,w] y) {
        [l0] a = Conv(x, w0)
        [l1] y = Conv(a, w1)
    }"""
    weights = {
        "w0": random((4, 4, 3, 3)).astype(np.float32),
        "w1": random((6, 4, 3, 3), 1).astype(np.float32),
    }
    first, _ = compress(text_model(text, weights), {"l0": "cp:R=3"}, portable=True)
    both, _ = compress(first, {"l1": "cp:R=4"}, portable=True)
    assert [f.name for f in both.functions] == ["CPConv"]
    assert [o.domain for o in both.opset_import] == ["", "onnx_lowrank"]
    assert [n.op_type for n in both.graph.node] == ["CPConv", "CPConv"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"dtype": np.float16}, "float16"),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2], "input_shape": ("N", C, "h", "w")}, "SAME"),
        ({"axes": 3}, "3 spatial axes"),
    ],
)
def test_what_the_kernels_do_not_serve_becomes_standard_ops(
    given: dict[str, Any], why: str
) -> None:
    axes = given.pop("axes", 2) if "axes" in given else 2
    model = conv_model(random((F, C, *(2,) * axes)), random((F,), 1), **given)
    rewritten, result = compress(model, {"conv": "cp:R=3"}, portable=True)
    (refusal,) = result.refusals
    assert why in refusal.reason
    assert {node.domain for node in rewritten.graph.node} == {""}
    assert len(rewritten.functions) == 0
    assert rewritten.ir_version == model.ir_version


@pytest.mark.parametrize("spec", ["spatial:R=2", "channel:R=3"])
def test_structures_of_two_convs_have_no_node_of_their_own(spec: str) -> None:
    model = conv_model(random((F, C, 3, 3)), None)
    rewritten, result = compress(model, {"conv": spec}, portable=True)
    assert [node.op_type for node in rewritten.graph.node] == ["Conv", "Conv"]
    (refusal,) = result.refusals
    assert refusal.reason.startswith("there is no portable node for")
