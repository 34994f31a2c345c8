from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import conv_model, text_model
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph import check
from onnx_lowrank.graph.check import check_model, infer_shapes
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.without_weights import split_weights

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3))


@pytest.fixture(params=["as it is", "as a light"])
def _mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check with small weights in the model, and again as if they were large."""
    if request.param == "as a light":
        monkeypatch.setattr(check, "LARGE", 100)  # the Convs' weights, not the constants of shapes


pytestmark = pytest.mark.usefixtures("_mode")


def test_valid_models_pass_and_are_not_changed() -> None:
    for model in (
        conv_model(WEIGHT, np.ones(4), pads=[1, 1, 1, 1]),
        conv_model(WEIGHT, ir_version=3, opset=9),
        text_model("net (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"),
    ):
        before = model.SerializeToString(deterministic=True)
        check_model(model)
        infer_shapes(model)
        assert model.SerializeToString(deterministic=True) == before


def _unknown_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("colour", 1))


def _no_ir_version(model: onnx.ModelProto) -> None:
    model.ClearField("ir_version")


def _not_sorted(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["y"], output=["z"])
    model.graph.node.insert(0, helper.make_node("Relu", ["z"], ["zz"]))


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["x"], output=["y"])


def _output_called_as_a_weight(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["x"], output=["w"])


def _output_called_as_an_input(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["y"], output=["x"])


def _two_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def _wrong_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


def _wrong_channels(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def _cut_weight(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:-4]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_unknown_attribute, "Unrecognized attribute: colour for operator Conv"),
        (_no_ir_version, "ir_version"),
        (_not_sorted, "topologically sorted"),
        (_two_outputs, "two tensors are called 'y'"),
        (_output_called_as_a_weight, "two tensors are called 'w'"),
        (_output_called_as_an_input, "two tensors are called 'x'"),
        (_two_weights, "two tensors are called 'w'"),
        (_wrong_shape, r"Inferred shape and existing shape differ"),
        (_cut_weight, r"'w' has 428 bytes of data, .* \[4, 3, 3, 3\] ask for 432"),
    ],
)
def test_what_is_wrong_is_named(spoil: object, says: str) -> None:
    model = conv_model(WEIGHT)
    spoil(model)  # type: ignore[operator]
    with pytest.raises(ModelError, match=says) as caught:
        check_model(model)
    assert ";" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_explanation_has_an_end() -> None:
    sums = " ".join(f"a{i + 1} = Add(x, w)" for i in range(40))
    text = f"net (float[3] x) => (float[3] a40) {{ {sums} }}"
    model = text_model(text, {"w": np.zeros(5, np.float32)})
    with pytest.raises(ModelError, match=r"not valid ONNX: .* \.\.\.; export it again") as caught:
        check_model(model)
    assert len(str(caught.value)) < 500


def test_shapes_of_all_tensors() -> None:
    text = """net (float[N,3,"H",8] x) => (y) <int64[2] flat = {0, -1}> {
        a = Conv<strides=[2,2]>(x, w)
        b = GlobalAveragePool(a)
        y = Reshape(b, flat)
    }"""
    model = text_model(text.replace('"H"', "H"), {"w": WEIGHT.astype(np.float32)})
    shapes = infer_shapes(model)
    assert shapes["x"] == ("N", 3, "H", 8)
    assert shapes["w"] == (4, 3, 3, 3)
    assert shapes["a"][:2] == ("N", 4)
    assert not isinstance(shapes["a"][2], int)
    assert shapes["a"][3] == 3
    assert shapes["y"][0] == "N"
    shapes = infer_shapes(model, {"x": (2, 3, 16, 32)})
    assert shapes["x"] == (2, 3, 16, 32)
    assert shapes["a"] == (2, 4, 7, 15)
    assert shapes["y"][0] == 2


def test_input_shapes_that_do_not_fit() -> None:
    model = conv_model(WEIGHT, ir_version=3, opset=9)
    for shapes, says in (
        ({"z": (1, 3, 9, 9)}, r"no input 'z'; its inputs are 'x'"),
        ({"xx": (1, 3, 9, 9)}, r"no input 'xx'; did you mean 'x'\?"),
        ({"w": (4, 3, 3, 3)}, "no input 'w'"),  # listed among the inputs, but a weight
        ({"x": (3, 9, 9)}, r"input 'x' has 4 axes, not the 3 of 3x9x9; give one size for each"),
        ({"x": (0, 3, 9, 9)}, "give positive sizes"),
        ({"x": (-1, 3, 9, 9)}, "give positive sizes"),
    ):
        with pytest.raises(ModelError, match=says):
            infer_shapes(model, shapes)


def test_notes_on_shapes_are_used_only_where_nothing_better_is_known() -> None:
    text = """net (float[N,3,9,9] x) => (y) {
        a = Conv(x, w)
        b = other.Mystery(a)
        c = Relu(b)
        y = Relu(c)
    }"""
    model = text_model(text, {"w": WEIGHT.astype(np.float32)})
    model.opset_import.add(domain="other", version=1)
    make = helper.make_tensor_value_info
    stale = make("a", TensorProto.FLOAT, ["N", 4, 99, 99])
    model.graph.value_info.extend([stale, make("b", TensorProto.FLOAT, ["N", 4, 5, 6])])
    shapes = infer_shapes(model)
    assert shapes["a"] == ("N", 4, 7, 7)
    assert shapes["b"] == shapes["y"] == ("N", 4, 5, 6)
    # Only what was open changes: what is noted still holds.
    assert infer_shapes(model, {"x": (2, 3, 9, 9)})["y"] == ("N", 4, 5, 6)
    # A size that was fixed changes.
    assert "y" not in infer_shapes(model, {"x": (2, 3, 18, 18)})


def test_a_reshape_to_computed_sizes_keeps_its_rank() -> None:
    text = """net (float[N,3,H,9] x) => (float[N,4,A,B] y) <int64[1] last = {-1}> {
        s = Shape(x)
        r = ReduceMax<keepdims=1>(s)
        t = Concat<axis=0>(last, r, last, r)
        a = Reshape(x, t)
        y = Conv(a, w)
    }"""
    shapes = infer_shapes(text_model(text, {"w": WEIGHT.astype(np.float32)}))
    assert len(shapes["a"]) == 4
    assert shapes["y"][1] == 4


def test_an_invalid_model_keeps_what_it_says_of_itself() -> None:
    model = conv_model(WEIGHT)
    _wrong_channels(model)
    assert infer_shapes(model)["x"] == ("N", 5, 9, 9)


def test_the_light_models_pass(light_folder: object) -> None:
    for name in ("light_densenet121", "light_resnet50"):
        model = load_model(f"{light_folder}/{name}.onnx")
        check_model(model)
        shapes = infer_shapes(model)
        assert all(output in shapes for node in model.graph.node for output in node.output[:1])


def test_large_weights_do_not_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its light a model of 64 MB of weights is not copied."""
    monkeypatch.setattr(check, "LARGE", 2**16)
    model = text_model("net (float[N,4096] x) => (float[N,4096] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((4096, 4096), np.float32), "w"))
    light, pairs = split_weights(model, above=check.LARGE)
    assert [tensor.name for tensor, _ in pairs] == ["w"]
    assert light.ByteSize() < 300
    check_model(model)
    assert infer_shapes(model)["y"] == ("N", 4096)
