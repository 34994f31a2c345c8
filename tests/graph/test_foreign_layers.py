"""Every node that multiplies by weights is listed, with why it stays and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from builders import text_model
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_lowrank.graph.layers import Layer, find_layers
from onnx_lowrank.pipelines.compress import compress

MICROSOFT = helper.make_opsetid("com.microsoft", 1)
RNG = np.random.default_rng(0)


def values(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    return (10 * RNG.standard_normal(shape)).astype(dtype)


WEIGHTS: Mapping[str, NDArray[Any]] = {
    "m": values(4, 5),
    "m5": values(5, 4),
    "k": values(4, 6, 3, 3),
    "k1": values(6, 4, 3, 3),
    "i8": values(4, 5, dtype=np.int8),
    "k8": values(6, 4, 3, 3, dtype=np.uint8),
    "lstm_w": values(1, 12, 4),
    "lstm_r": values(1, 12, 3),
    "packed": values(32, 2, 16, dtype=np.uint8),
    "scales": values(64),
    "offset": values(1, 18, 7, 7),
    "s": np.array(0.1, np.float32),
    "z": np.array(3, np.uint8),
    "qkv": values(4, 12),
    "qkv_bias": values(12),
}
QUANTISED = "it is quantised; give the model as it was before quantisation"
OWN = "it is an op of onnxruntime's own; give the model as it was before optimisation"
LEFT = "its constant is on the left; only a constant on the right is approximated"

# Node, reason, multiply-adds of one image, parameters, bytes.
CASES = [
    ("ConvTranspose(img, k)", "no scheme approximates the op ConvTranspose", 216 * 81, 216, 864),
    ("DeformConv(img, k1, offset)", "no scheme approximates the op DeformConv", 216 * 49, 216, 864),
    ("QLinearConv(q8, s, z, k8, s, z, s, z)", QUANTISED, 216 * 49, 216, 216),
    ("ConvInteger(q8, k8)", QUANTISED, 216 * 49, 216, 216),
    ("MatMulInteger(r8, i8)", QUANTISED, 20 * 7, 20, 20),
    ("QLinearMatMul(r8, s, z, i8, s, z, s, z)", QUANTISED, 20 * 7, 20, 20),
    ("MatMul(m5, cols)", LEFT, 20 * 7, 20, 80),
    ("Gemm(m5, flat)", LEFT, 20 * 3, 20, 80),
    ("Einsum<equation='bct,cd->bdt'>(cols, m)", "Einsum", 20 * 7, 20, 80),
    ("Einsum<equation='...c,cd->...d'>(rows, m)", "Einsum", 20 * 7, 20, 80),
    ("LSTM<hidden_size=3>(steps, lstm_w, lstm_r)", "LSTM", 84 * 5, 84, 336),
    ("GRU<hidden_size=4>(steps, lstm_w, lstm_r)", "GRU", 84 * 5, 84, 336),
    ("com.microsoft.FusedConv(img, k1)", OWN, 216 * 49, 216, 864),
    ("com.microsoft.FusedMatMul(rows, m)", OWN, 20 * 7, 20, 80),
    ("com.microsoft.FusedMatMul<transA=1>(m, cols)", OWN, 20 * 7, 20, 80),
    ("com.microsoft.FusedGemm(flat, m)", OWN, 20, 20, 80),
    ("com.microsoft.TransposeMatMul(rows, m)", OWN, 20 * 7, 20, 80),
    ("com.microsoft.MatMulNBits<K=64,N=32>(wide, packed, scales)", QUANTISED, 14336, 2048, 1280),
    ("com.microsoft.DynamicQuantizeMatMul(rows, i8, s)", QUANTISED, 20 * 7, 20, 20),
    ("com.microsoft.MatMulIntegerToFloat(r8, i8, s, s)", QUANTISED, 20 * 7, 20, 20),
    ("com.microsoft.QGemm(f8, s, z, i8, s, z)", QUANTISED, 20, 20, 20),
    ("com.microsoft.Attention<num_heads=2>(rows, qkv, qkv_bias)", OWN, 48 * 7, 48, 192),
]
INPUTS = (
    "float[N,4,9,9] img, uint8[N,4,9,9] q8, uint8[N,7,4] r8, float[N,7,4] rows, float[N,4,7] cols, "
    "float[4,3] tall, float[5,N,4] steps, float[N,7,64] wide, uint8[N,4] f8, float[4,4] sq"
)


def model_of(node: str, inputs: str = INPUTS) -> onnx.ModelProto:
    flat = "tall" if node.startswith("Gemm") else "sq"
    node = node.replace("flat", flat).replace("'", '"')
    used = set(node.replace(",", " ").replace("(", " ").replace(")", " ").split())
    weights = {name: value for name, value in WEIGHTS.items() if name in used}
    model = text_model(f"net ({inputs}) => (y) {{ [it] y = {node} }}", weights, opset=19)
    model.opset_import.append(MICROSOFT)
    return model


def only(model: onnx.ModelProto) -> Layer:
    (layer,) = find_layers(model)
    return layer


@pytest.mark.parametrize(("node", "reason", "macs", "params", "size"), CASES)
def test_each_is_listed_with_its_reason_and_cost(
    node: str, reason: str, macs: int, params: int, size: int
) -> None:
    layer = only(model_of(node))
    assert layer.name == "it"
    assert layer.reason is not None
    assert reason in layer.reason
    assert layer.spec is None
    assert (layer.macs, layer.params) == (macs, params)
    assert layer.weights is not None
    assert sum(weight.bytes for weight in layer.weights) == size


@pytest.mark.parametrize(
    "node",
    [
        "MatMul(sq, sq)",
        "Gemm(sq, sq)",
        "MatMulInteger(r8, r8)",
        "Einsum<equation='ij,jk->ik'>(sq, sq)",
        "com.microsoft.FusedMatMul(sq, sq)",
        "other.Conv(img, k1)",
        "other.LSTM(steps, lstm_w, lstm_r)",
        "other.FusedConv(img, k1)",
        "FusedConv(img, k1)",
        "onnx_lowrank.LRN(img)",
        "Gather(m, sq)",
    ],
)
def test_no_weights_or_another_op_of_that_name_is_no_layer(node: str) -> None:
    assert find_layers(model_of(node)) == ()


def test_a_local_function_of_that_name_is_what_it_consists_of() -> None:
    model = model_of("com.microsoft.FusedConv(img, k1)")
    body = [helper.make_node("Conv", ["x", "w"], ["c"], name="inner")]
    function = helper.make_function(
        "com.microsoft", "FusedConv", ["x", "w"], ["c"], body, [helper.make_opsetid("", 19)]
    )
    model.functions.append(function)
    layer = only(model)
    assert (layer.name, layer.op, layer.params) == ("inner", "Conv", 216)


@pytest.mark.parametrize("op", ["Conv", "MatMul", "Gemm"])
def test_a_sparse_weight(op: str) -> None:
    kernel = (3, 3) if op == "Conv" else ()
    shape = "N,4,9,9" if op == "Conv" else "N,4"
    model = text_model(f"net (float[{shape}] x) => (y) {{ y = {op}(x, w) }}")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1, 2], np.float32), "w"),
        numpy_helper.from_array(np.array([1, 5]), "w_indices"),
        [4, 4, *kernel],
    )
    model.graph.sparse_initializer.append(sparse)
    layer = only(model)
    assert layer.reason == "its weight 'w' is stored sparsely; store it dense"
    assert layer.weights is not None
    assert [(weight.params, weight.bytes) for weight in layer.weights] == [(2, 24)]


def test_a_weight_that_only_a_custom_op_can_compute() -> None:
    model = text_model(
        "net (float[N,4] x) => (y) { d = custom.Decode(m) y = MatMul(x, d) }", {"m": WEIGHTS["m"]}
    )
    layer = only(model)
    assert layer.reason == "its weight 'd' cannot be computed here; fold the constants first"
    assert layer.weights is None


def conv_net(path: Path) -> None:
    model = text_model(
        "net (float[1,16,12,12] x) => (float[1,32,12,12] y) {"
        " [first] c = Conv<pads=[1,1,1,1]>(x, w)"
        " r = Relu(c)"
        " [second] y = Conv<pads=[1,1,1,1]>(r, v) }",
        {"w": values(16, 16, 3, 3), "v": values(32, 16, 3, 3)},
    )
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        (ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, OWN),
        (
            ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
            "onnxruntime optimised it for one machine; give the original, the model as it was "
            "before that",
        ),
    ],
)
def test_what_onnxruntime_saved(
    tmp_path: Path, level: ort.GraphOptimizationLevel, reason: str
) -> None:
    conv_net(tmp_path / "net.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    saved = onnx.load(tmp_path / "saved.onnx")
    if not any(node.domain.startswith("com.microsoft") for node in saved.graph.node):
        pytest.skip("this onnxruntime leaves the model as it is on this machine")
    layers = find_layers(saved)
    assert layers[0].reason == reason
    # Padding to whole blocks may only add to them; there is none to add here.
    assert [layer.macs for layer in layers] == [16 * 16 * 9 * 144, 32 * 16 * 9 * 144]


PORTABLE = [
    ("mono:C=2", "already low-rank (monochromatic, 2 colours)", 2 * 8 + 9 * 8),
    ("tucker2:R1=3,R2=4", "already low-rank (Tucker-2, ranks 3 and 4)", 3 * 8 + 9 * 12 + 4 * 8),
    ("cp:R=5", "already low-rank (CP, rank 5)", 5 * (8 + 9 + 8)),
    (
        "bicluster-svd:G=2,H=2,K1=2,K2=3",
        "already low-rank (2 x 2 blocks of Tucker-2, ranks 2 and 3)",
        4 * (2 * 4 + 9 * 6 + 3 * 4),
    ),
    (
        "bicluster-outer:G=2,H=2,K=3",
        "already low-rank (2 x 2 blocks of CP, rank 3)",
        4 * 3 * (4 + 9 + 4),
    ),
]


@pytest.mark.parametrize(("scheme", "reason", "params"), PORTABLE)
def test_our_own_portable_nodes_are_what_they_are(scheme: str, reason: str, params: int) -> None:
    source = text_model(
        "net (float[N,8,9,9] x) => (float[N,8,h,w] y) { [conv] y = Conv<strides=[2,2]>(x, w) }",
        {"w": values(8, 8, 3, 3)},
    )
    result = compress(source, plan=[f"conv={scheme}"], lowering="portable", verification=False)
    layer = only(result.model)
    assert layer.reason == reason
    assert layer.params == params
    cost = result.report.cost.total
    assert (layer.macs, layer.params) == (cost.macs_new, cost.params_new)
