"""One gate for models: hostile ones are refused by name, forgivable ones repaired with a note."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import add_weights, run, text_model
from onnx import TensorProto, helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.gate import read_model
from onnx_lowrank.graph.layers import find_layers

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.standard_normal((4, 4, 3, 3)).astype(np.float32),
    "b": RNG.standard_normal(4).astype(np.float32),
}
FEED = {"x": RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)}
TEXT = """
net (float[2,4,6,6] x) => (float[2,4,6,6] y) {
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
    r = Relu(c)
    y = Neg(r)
}
"""
Change = Callable[[onnx.ModelProto], object]


def build(change: Change = lambda model: None, **options: int) -> onnx.ModelProto:
    model = text_model(TEXT, WEIGHTS, **options)
    change(model)
    return model


def value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def reorder(model: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


def respell(model: onnx.ModelProto) -> None:
    for each in (*model.graph.node, *model.opset_import):
        each.domain = "ai.onnx"


def gelu_without_import(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"


def weight_twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])


def two_weights(model: onnx.ModelProto) -> None:
    weight_twice(model)
    model.graph.initializer[0].raw_data = bytes(576)


def unlist(model: onnx.ModelProto) -> None:
    del model.graph.input[1:]


def set_output(field: str) -> Change:
    return lambda model: model.graph.output[0].type.tensor_type.ClearField(field)


def wrong_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def call_nothing(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 13)]
    for name, inner in (("Outer", "Inner"), ("Inner", "NoOperator")):
        node = helper.make_node(inner, ["a"], ["b"], domain="my" if inner == "Inner" else "")
        model.functions.append(helper.make_function("my", name, ["a"], ["b"], [node], opset))
    model.functions[0].opset_import.append(helper.make_opsetid("my", 1))
    model.opset_import.append(helper.make_opsetid("my", 1))


def list_weights(model: onnx.ModelProto) -> None:
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in model.graph.initializer
        if t.name not in {each.name for each in model.graph.input}
    )


def old_ir(model: onnx.ModelProto) -> None:
    list_weights(model)
    model.ir_version = 1


def open_by_minus_one(model: onnx.ModelProto) -> None:
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = -1


REPAIRS: dict[str, tuple[Change, str, dict[str, int]]] = {
    "stale shape": (lambda m: m.graph.value_info.append(value("c", [2, 4, 5, 5])), "'c'", {}),
    "stale rank": (lambda m: m.graph.value_info.append(value("c", [2])), "'c'", {}),
    "out of order": (reorder, "out of order", {}),
    "spelling": (respell, "ai.onnx", {}),
    "one spelling": (lambda m: setattr(m.graph.node[1], "domain", "ai.onnx"), "ai.onnx", {}),
    "two versions": (
        lambda m: m.opset_import.insert(0, helper.make_opsetid("", 11)),
        "imported twice",
        {},
    ),
    "no import": (gelu_without_import, "'com.microsoft' was not imported", {}),
    "no name": (lambda m: m.graph.ClearField("name"), "no name", {}),
    "weight twice": (weight_twice, "twice and are once now ('w')", {}),
    "weights unlisted": (unlist, "IR 3", {"ir_version": 3}),
    "output without shape": (set_output("shape"), "'y'", {}),
    "output of another shape": (wrong_output, "'y'", {}),
    "unused functions": (call_nothing, "functions that no node calls", {"ir_version": 8}),
    "IR without imports": (old_ir, "IR 1", {}),
    "negative size": (open_by_minus_one, "negative sizes", {}),
}


@pytest.mark.parametrize("case", REPAIRS)
def test_what_onnxruntime_runs_is_repaired_with_a_note(case: str) -> None:
    change, words, options = REPAIRS[case]
    model = build(change, **options)
    before = model.SerializeToString()
    (expected,) = run(model, FEED)
    found = read_model(model)
    assert model.SerializeToString() == before
    (note,) = found.notes
    assert words in note
    check_model(found.model)
    onnx.checker.check_model(found.model, full_check=True)
    np.testing.assert_array_equal(run(found.model, FEED)[0], expected)
    again = read_model(found.model)
    assert again.notes == ()
    assert again.model == found.model
    assert [layer.reason for layer in find_layers(found.model)] == [None]


def test_a_valid_model_stays_byte_for_byte() -> None:
    model = build()
    model.metadata_props.add(key="author", value="me")
    model.graph.value_info.append(value("c", [2, 4, 6, 6]))
    found = read_model(model)
    assert found.notes == ()
    assert found.model == model


def test_stale_shapes_inside_bodies_are_dropped() -> None:
    model = text_model(
        """
        net (float[2,4] x, bool c) => (float[2,4] y) {
            y = If(c) <then_branch = t () => (float[2,4] a) { u = Relu(x) a = Neg(u) },
                       else_branch = e () => (float[2,4] z) { z = Neg(x) }>
        }
        """
    )
    body = model.graph.node[0].attribute[0].g
    body.value_info.append(value("u", [2, 5]))
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    feed = {"x": x, "c": np.array(True)}
    (expected,) = run(model, feed)
    found = read_model(model)
    (note,) = found.notes
    assert "inside bodies" in note
    np.testing.assert_array_equal(run(found.model, feed)[0], expected)


def test_metadata_of_one_key_is_kept_once() -> None:
    model = build()
    for text in ("old", "new"):
        model.metadata_props.add(key="author", value=text)
    found = read_model(model)
    assert [(p.key, p.value) for p in found.model.metadata_props] == [("author", "new")]
    assert "metadata" in found.notes[0]


def test_bodies_and_functions_are_sorted_and_spelt_too() -> None:
    model = text_model(
        """
        net (float[2,3] x, bool c) => (float[2,3] y) {
            y = If(c) <then_branch = t () => (float[2,3] a) { a = Neg(u) u = Relu(x) },
                       else_branch = e () => (float[2,3] z) { z = my.F(x) }>
        }
        <domain: "my", opset_import: ["" : 16]>
        F (p) => (q) { q = Neg(o) o = Relu(p) }
        """,
        opset=16,
    )
    model.opset_import.append(helper.make_opsetid("my", 1))
    model.functions[0].node[0].domain = "ai.onnx"
    found = read_model(model)
    assert sorted(note.split()[0] for note in found.notes) == ["nodes", "the"]
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    for chosen in (True, False):
        (y,) = run(found.model, {"x": x, "c": np.array(chosen)})
        np.testing.assert_array_equal(y, -np.maximum(x, 0))


def test_notes_that_inference_cannot_check_stay() -> None:
    model = build()
    model.graph.node[1].domain = "custom"
    model.opset_import.append(helper.make_opsetid("custom", 1))
    model.graph.value_info.extend([value("r", [2, 4, 6, 6]), value("c", [2, 4, 5, 5])])
    found = read_model(model)
    assert [each.name for each in found.model.graph.value_info] == ["r"]


def first(model: onnx.ModelProto) -> onnx.NodeProto:
    return model.graph.node[0]


def with_attribute(name: str, *values: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        kept = [a for a in first(model).attribute if a.name != name]
        del first(model).attribute[:]
        given = values[0] if name == "group" else values
        first(model).attribute.extend([*kept, helper.make_attribute(name, given)])

    return change


def with_function(*pairs: tuple[str, str, list[str]]) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for domain, name, calls in pairs:
            nodes = [helper.make_node(call, ["a"], ["b"], domain="my") for call in calls]
            nodes = nodes or [helper.make_node("Relu", ["a"], ["b"])]
            for place, node in enumerate(nodes):
                node.input[0] = f"t{place}" if place else "a"
                node.output[0] = f"t{place + 1}" if place + 1 < len(nodes) else "b"
            imports = [helper.make_opsetid("", 13), helper.make_opsetid("my", 1)]
            model.functions.append(helper.make_function(domain, name, ["a"], ["b"], nodes, imports))
        model.opset_import.append(helper.make_opsetid("my", 1))
        model.graph.node[1].domain, model.graph.node[1].op_type = "my", "F0"

    return change


def weight_field(field: str, content: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        if isinstance(content, list):
            getattr(tensor, field)[:] = content
        else:
            setattr(tensor, field, content)

    return change


def nested(model: onnx.ModelProto) -> None:
    graph = model.graph
    for _ in range(40):
        node = graph.node.add(op_type="If", input=["t"], output=["o"])
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.name = "g"
        graph = attribute.g


def cycle(model: onnx.ModelProto) -> None:
    first(model).input[0] = "r"


def constant_of_other_size(model: onnx.ModelProto) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(12), name="k")
    node = helper.make_node("Constant", [], ["k"])
    node.attribute.append(helper.make_attribute("value", tensor))
    model.graph.node.insert(0, node)


def no_text(model: onnx.ModelProto) -> onnx.ModelProto:
    first(model).name = "QQQQ"
    return onnx.ModelProto.FromString(
        model.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xfd\xfc")
    )


LAUGHS = [("my", f"F{i}", [f"F{i + 1}"] * 10) for i in range(9)] + [("my", "F9", [])]
HOSTILE: dict[str, tuple[Change, str]] = {
    "data too short": (weight_field("raw_data", b"123"), "tensor 'w' holds 3 in raw_data"),
    "data in a wrong field": (weight_field("int64_data", [1]), "tensor 'w' holds"),
    "dims of other data": (weight_field("dims", [4, 4, 3]), "tensor 'w' holds"),
    "negative dims": (weight_field("dims", [-4, 4, 3, 3]), "impossible dimensions"),
    "dims that overflow": (weight_field("dims", [2**62, 4]), "impossible dimensions"),
    "101 axes": (weight_field("dims", [1] * 101), "of 101 axes"),
    "unknown type": (weight_field("data_type", -5), "unknown type (-5)"),
    "no type": (weight_field("data_type", 0), "unknown type"),
    "no inputs": (lambda m: first(m).ClearField("input"), "input size 0"),
    "no outputs": (lambda m: first(m).ClearField("output"), "Conv"),
    "attribute of another type": (
        lambda m: first(m).attribute.append(helper.make_attribute("strides", "a")),
        "strides",
    ),
    "reference to no function": (
        lambda m: setattr(first(m).attribute[1], "ref_attr_name", "pads"),
        "refers to one of a function",
    ),
    "zero strides": (with_attribute("strides", 0, 1), "'strides'"),
    "endless strides": (with_attribute("strides", 2**32, 1), "'strides'"),
    "zero groups": (with_attribute("group", 0), "'group'"),
    "three groups": (with_attribute("group", 3), "groups"),
    "endless pads": (with_attribute("pads", 2**62, 0, 0, 0), "'pads'"),
    "strides of one axis": (with_attribute("strides", 1), "strides"),
    "another kernel": (with_attribute("kernel_shape", 5, 5), "kernel_shape"),
    "bias of another length": (
        lambda m: m.graph.initializer[1].CopyFrom(
            onnx.numpy_helper.from_array(np.zeros(5, np.float32), "b")
        ),
        "bias is of shape [5]",
    ),
    "batch of petabytes": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2**60),
        "impossible dimensions",
    ),
    "input of an unknown type": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", -1),
        "unknown type (-1)",
    ),
    "input without a type": (
        lambda m: m.graph.input[0].ClearField("type"),
        "input 'x' has no type",
    ),
    "opset of the future": (
        lambda m: setattr(m.opset_import[0], "version", 99),
        "is of opset 99, and the installed onnx knows opsets up to",
    ),
    "opset of the future in another spelling": (
        lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 99)),
        "is of opset 99",
    ),
    "misspelt auto_pad": (
        lambda m: first(m).attribute.append(helper.make_attribute("auto_pad", "same_upper")),
        "node 'c' (Conv) has the auto_pad 'same_upper'; it takes NOTSET, VALID, SAME_UPPER or",
    ),
    "auto_pad of another type": (
        lambda m: first(m).attribute.append(helper.make_attribute("auto_pad", 1)),
        "auto_pad",
    ),
    "function twice": (with_function(("my", "F0", []), ("my", "F0", [])), "twice"),
    "recursive function": (with_function(("my", "F0", ["F0"])), "calls itself"),
    "functions in a circle": (
        with_function(("my", "F0", ["F1"]), ("my", "F1", ["F0"])),
        "calls itself",
    ),
    "function of functions of functions": (with_function(*LAUGHS), "stand for"),
    "function called as a standard op": (with_function(("", "Relu", [])), "standard operator"),
    "nested too deep": (nested, "deep"),
    "circle": (cycle, "waits for its own output"),
    "constant of another size": (constant_of_other_size, "tensor 'k' holds 12"),
    "two weights of one name": (two_weights, "called 'w'"),
    "input twice": (lambda m: m.graph.input.append(m.graph.input[0]), "'x'"),
    "output of nothing": (lambda m: setattr(m.graph.output[0], "name", "gone"), "gone"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_model_is_refused_by_name(case: str) -> None:
    change, words = HOSTILE[case]
    with pytest.raises(ModelError) as caught:
        read_model(build(change))
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert len(text) < 700
    assert "cannot be read" not in text  # the place is known: it is no stray exception


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(ModelError, match="no text"):
        read_model(no_text(build()))


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "a\0b"},
        {"location": "a" * 300},
        {"location": "/etc/passwd"},
        {"location": "../data"},
        {"location": ""},
        {"location": "data", "offset": str(2**63)},
        {"location": "data", "offset": "-1"},
        {"location": "data", "offset": "9" * 5000},
        {"location": "data", "length": "576\0"},
        {"location": "data", "length": str(2**62)},
    ],
    ids=str,
)
def test_external_data_that_cannot_be_are_refused(tmp_path: Path, entries: dict[str, str]) -> None:
    model = build()
    tensor = model.graph.initializer[0]
    (tmp_path / "data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="'w'") as caught:
        read_model(path)
    assert "cannot be read" not in str(caught.value)


def test_stray_exceptions_name_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto) -> None:
        raise KeyError("something nobody has foreseen")

    monkeypatch.setattr("onnx_lowrank.graph.gate.check_convs", fail)
    with pytest.raises(ModelError, match="checking it failed with KeyError"):
        read_model(build())


def test_double_and_string_and_narrow_tensors_pass() -> None:
    model = build()
    for tensor in (
        helper.make_tensor("a", TensorProto.INT4, [3], [1, 2, 3]),
        helper.make_tensor("s", TensorProto.STRING, [2], [b"a", b""]),
        helper.make_tensor("e", TensorProto.FLOAT, [0, 3], []),
        helper.make_tensor("h", TensorProto.FLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("z", TensorProto.COMPLEX64, [2], [1j, 2.0]),
        helper.make_tensor("u", TensorProto.UINT32, [], [7]),
        helper.make_tensor("t", TensorProto.BOOL, [1], [True]),
    ):
        model.graph.initializer.append(tensor)
    model.ir_version = 10
    add_weights(model, {"d": np.zeros((2, 2))})
    assert read_model(model).notes == ()


def test_an_empty_auto_pad_is_none() -> None:
    """As onnxruntime takes it: the pads count."""
    model = build(lambda m: first(m).attribute.append(helper.make_attribute("auto_pad", "")))
    assert np.array_equal(run(model, FEED)[0], run(build(), FEED)[0])
    (layer,) = find_layers(read_model(model).model)
    assert layer.spec is not None
    assert (layer.spec.auto_pad, layer.spec.pads) == ("NOTSET", (1, 1, 1, 1))


PACKAGE = Path(__file__).parents[2] / "onnx_lowrank"
# What reads models that this package made or has checked already.
UNCHECKED = {
    "graph/gate.py",
    "estimation/perturbed.py",
    "fitting/statistics/collect.py",
    "pipelines/cascade.py",
    "pipelines/sweeping/evaluate.py",
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_models_of_users_come_through_the_gate_alone(path: Path) -> None:
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "onnx_lowrank.graph.io"
        for alias in node.names
    }
    if path.relative_to(PACKAGE).as_posix() not in UNCHECKED:
        assert "load_model" not in names
