"""Whole calls of the API on models of the kinds that went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import initializers, run, text_model
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnx_lowrank
from onnx_lowrank.errors import ModelError, PlanError, RepairWarning
from onnx_lowrank.pipelines.benchmark import benchmark
from onnx_lowrank.spectra import layer_spectra

RNG = np.random.default_rng(0)


def low_rank(rows: int, columns: int) -> NDArray[np.float32]:
    """A 3x3 kernel of Tucker-2 ranks 2 and 2, whose filters have two colours."""
    left, right = RNG.standard_normal((rows, 2)), RNG.standard_normal((2, columns))
    core = RNG.standard_normal((2, 2, 3, 3))
    return np.einsum("fa,abhw,bc->fchw", left, core, right).astype(np.float32)


def coloured(rows: int, columns: int) -> NDArray[np.float32]:
    """A kernel whose filters have one of two colours, in mixed order: exact for mono:C=2."""
    colours, filters = RNG.standard_normal((2, columns)), RNG.standard_normal((rows, 3, 3))
    of = RNG.permutation(np.arange(rows) % 2)
    return np.einsum("fc,fhw->fchw", colours[of], filters).astype(np.float32)


SAME = "<kernel_shape=[3,3], pads=[1,1,1,1]>"
TUCKER = ["*=tucker2:R1=2,R2=2"]


def one_conv(tail: str, weights: dict[str, Any], **options: Any) -> onnx.ModelProto:
    text = f"net (float[1,8,6,6] x) => (float[1,8,6,6] y) {{ [conv] c = Conv{SAME}(x, w) {tail} }}"
    return text_model(text, {"w": low_rank(8, 8), **weights}, **options)


def names(values: Any) -> list[str]:
    return [value.name for value in values]


def test_an_op_named_like_a_standard_one_is_another_op() -> None:
    model = text_model(
        f"""
        net (float[1,8,6,6] x) => (float[1,8,6,6] y) {{
            [conv] c = Conv{SAME}(x, w)
            [act] r = my.Relu(c)
            [conv2] y = Conv{SAME}(r, v)
        }}
        <domain: "my", opset_import: ["" : 16]>
        Relu (a) => (b) {{
            k = Constant<value = float[1,8,1,1] {{1,2,3,4,5,6,7,8}}>()
            b = Mul(a, k)
        }}
        """,
        {"w": coloured(8, 8), "v": low_rank(8, 8)},
        opset=16,
    )
    model.opset_import.append(helper.make_opsetid("my", 1))
    result = onnx_lowrank.compress(model, plan=["conv=mono:C=2"])
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert [n.op_type for n in result.model.graph.node].count("Gather") == 1


@pytest.mark.parametrize("storage", ["int8", "float16"])
def test_a_kept_layer_keeps_its_storage(storage: str) -> None:
    stored = RNG.integers(-100, 100, (64, 64, 3, 3))
    chain = "k = DequantizeLinear(q, s)" if storage == "int8" else "k = Cast<to=1>(q)"
    weights: dict[str, Any] = {"w": coloured(64, 8), "q": stored.astype(storage)}
    if storage == "int8":
        weights["s"] = np.array(0.01, np.float32)
    model = text_model(
        f"""net (float[1,8,6,6] x) => (float[1,64,6,6] y) {{
            [conv] c = Conv{SAME}(x, w) r = Relu(c) {chain} [conv2] y = Conv{SAME}(r, k) }}""",
        weights,
    )
    result = onnx_lowrank.compress(model, plan=["conv=mono:C=2", "conv2=keep"])
    assert result.report.verification is not None
    assert result.report.verification.passed
    large = [v for v in initializers(result.model).values() if v.size == stored.size]
    assert [v.dtype.name for v in large] == [storage]
    assert result.model.ByteSize() < model.ByteSize()


@pytest.mark.parametrize("lowering", ["standard", "portable"])
def test_optional_inputs_stay_or_are_said_to_be_frozen(lowering: Any) -> None:
    model = one_conv("y = Clip(c, lo, hi)", {"b": np.arange(8, dtype=np.float32)})
    for name, bound in (("lo", -1), ("hi", 1)):
        tensor = onnx.numpy_helper.from_array(np.array(bound, np.float32), name)
        model.graph.initializer.append(tensor)
    model.graph.node[0].input.append("b")
    for name, shape in (("hi", []), ("b", [8])):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    result = onnx_lowrank.compress(model, plan=TUCKER, lowering=lowering)
    assert names(result.model.graph.input) == ["x", "hi"]
    (note,) = result.report.notes
    assert "frozen" in note
    assert "'b'" in note
    assert "'hi'" not in note
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert any("'b'" in each for each in result.report.verification.notes)
    feed = {"x": RNG.standard_normal((1, 8, 6, 6)).astype(np.float32)}
    for high in (1.0, 5.0):  # the caller's bound holds still
        feed["hi"] = np.array(high, np.float32)
        if lowering == "standard":
            np.testing.assert_allclose(run(result.model, feed)[0], run(model, feed)[0], atol=1e-4)


def test_what_replaces_a_node_has_its_metadata() -> None:
    model = one_conv("y = Relu(c)", {}, ir_version=10, opset=20)
    model.graph.node[0].metadata_props.add(key="namespace", value="stem")
    result = onnx_lowrank.compress(model, plan=TUCKER)
    for node in result.model.graph.node:
        assert bool(node.metadata_props) == node.name.startswith("conv/")


def test_a_zero_bias_of_the_input_s_type_is_constant() -> None:
    model = one_conv("y = Relu(c)", {"z": np.array(0), "n": np.array([8])}, opset=18)
    model.graph.node[0].input.append("b")
    model.graph.node.insert(0, helper.make_node("Expand", ["t", "n"], ["b"]))
    model.graph.node.insert(0, helper.make_node("CastLike", ["z", "x"], ["t"]))
    assert [row.reason for row in onnx_lowrank.inspect(model)] == [None]
    report = onnx_lowrank.compress(model, plan=TUCKER).report.verification
    assert report is not None
    assert report.passed


def test_nan_in_a_weight_ends_no_plan_under_a_glob() -> None:
    model = text_model(
        f"""net (float[N,8,6,6] x) => (float[N,16,6,6] y) {{
            [good] a = Conv{SAME}(x, w) [bad] b = Conv{SAME}(x, v) y = Concat<axis=1>(a, b) }}""",
        {"w": low_rank(8, 8), "v": np.full((8, 8, 3, 3), np.nan, np.float32)},
    )
    for plan in (TUCKER, None):
        result = onnx_lowrank.compress(model, plan=plan, verification=False)
        assert list(result.plan.chosen) == ["good"]
        assert "NaN" in result.report.kept["bad"]
    with pytest.raises(PlanError, match=r"'bad' .*NaN"):
        onnx_lowrank.compress(model, plan=["bad=tucker2:R1=2,R2=2"])


def test_repairs_are_notes_of_the_report() -> None:
    model = one_conv("y = Relu(c)", {})
    model.graph.value_info.append(
        helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 8, 5, 5])
    )
    result = onnx_lowrank.compress(model, plan=TUCKER)
    (note,) = result.report.notes
    assert "'c'" in note
    assert result.report.to_dict()["notes"] == [note]
    onnx.checker.check_model(result.model, full_check=True)
    report = onnx_lowrank.verify(model, result.model)
    assert report.passed
    assert any(each.startswith("the original: shapes noted") for each in report.notes)


def minus_one() -> onnx.ModelProto:
    model = one_conv(
        "f = Flatten(c) y = Gemm<transB=1>(f, g)", {"g": np.ones((4, 288), np.float32)}
    )
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    return model


def test_a_batch_of_minus_one_is_open(tmp_path: Path) -> None:
    model = minus_one()
    shapes = {"x": (3, 8, 6, 6)}
    with pytest.warns(RepairWarning, match="negative sizes"):
        (conv, _) = onnx_lowrank.inspect(model, input_shapes=shapes)
    assert conv.layer.spec is not None
    assert conv.layer.spec.macs == 8 * 8 * 9 * 36
    result = onnx_lowrank.compress(model, plan=["conv=tucker2:R1=2,R2=2"], input_shapes=shapes)
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert onnx_lowrank.verify(model, result.model, input_shapes=shapes).passed
    assert not result.model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")
    paths = [tmp_path / "original.onnx", tmp_path / "compressed.onnx"]
    onnx.save(model, paths[0])
    result.save(paths[1])
    with pytest.warns(RepairWarning, match=r"original\.onnx: negative sizes"):
        report = benchmark(paths, batches=(None, 2), input_shapes=shapes, repeats=8, seconds=0.1)
    assert [setting.batch for setting in report.settings] == [3, 2]


def broken() -> onnx.ModelProto:
    model = one_conv("y = Relu(c)", {})
    model.graph.initializer[0].raw_data = b"123"
    return model


@pytest.mark.parametrize(
    "call",
    [
        onnx_lowrank.inspect,
        onnx_lowrank.cost,
        lambda model: onnx_lowrank.verify(model, model),
        lambda model: onnx_lowrank.compress(model, plan=TUCKER),
        layer_spectra,
        lambda model: benchmark([model]),
    ],
)
def test_every_command_refuses_alike(call: Any) -> None:
    with pytest.raises(ModelError, match="tensor 'w' holds 3 in raw_data"):
        call(broken())
