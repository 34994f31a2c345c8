from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import conv_model, initializers, run, text_model, without
from onnx import TensorProto, helper

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.edit import GraphEditor, carry_notes
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)
X = RNG.standard_normal((2, 4, 9, 9)).astype(np.float32)

CHAIN = """net (float[N,4,9,9] x) => (float[N,4,H,V] y) {
    [one] a = Conv(x, w)
    [act] b = Relu(a)
    [two] c = Conv(b, w)
    [last] y = Relu(c)
}"""
BRANCHES = """net (float[N,4,9,9] x, bool c) => (float[N,4,H,V] y) {
    [one] a = Conv(x, w)
    [choose] y = If(c) <
        then_branch = t () => (float[N,4,A,B] p) { [inner] p = Conv(a, w) },
        else_branch = e () => (float[N,4,A,B] q) { q = Neg(a) }
    >
}"""


def chain(*, ir_version: int = 8) -> onnx.ModelProto:
    return text_model(CHAIN, {"w": W}, ir_version=ir_version, opset=9 if ir_version < 4 else 13)


def branches() -> onnx.ModelProto:
    return text_model(BRANCHES, {"w": W})


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in model.graph.node if n.name == name)
    return found


def is_sorted(model: onnx.ModelProto) -> bool:
    known = {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer}
    for each in model.graph.node:
        if not set(each.input) - {""} <= known:
            return False
        known |= set(each.output)
    return True


def test_who_writes_and_who_reads() -> None:
    model = chain()
    editor = GraphEditor(model)
    assert editor.producer("a") is node(model, "one")
    assert editor.producer("x") is editor.producer("w") is editor.producer("no") is None
    assert [n.name for n in editor.consumers("w")] == ["one", "two"]
    assert [n.name for n in editor.consumers("a")] == ["act"]
    assert editor.consumers("y") == []
    assert editor.is_graph_output("y")
    assert not editor.is_graph_output("a")


def test_what_bodies_read_counts() -> None:
    model = branches()
    editor = GraphEditor(model)
    assert [n.name for n in editor.consumers("w")] == ["one", "choose"]
    assert [n.name for n in editor.consumers("a")] == ["choose"]
    assert editor.consumers("p") == []


def test_what_bodies_of_bodies_read_counts_but_not_their_own() -> None:
    deep = """net (float[2] x, bool c, int64 n) => (y) {
        own = Neg(x)
        far = Neg(x)
        [loop] y = Loop(n, c, x) <body = b (int64 i, bool go, float[2] v) => (go2, u) {
            go2 = Identity(go)
            u = If(go) <
                then_branch = t () => (r) { mine = Neg(v) r = Add(mine, far) },
                else_branch = e () => (s) { s = Identity(v) }
            >
        }>
    }"""
    editor = GraphEditor(text_model(deep))
    assert [n.name for n in editor.consumers("far")] == ["loop"]
    assert editor.consumers("own") == editor.consumers("mine") == editor.consumers("v") == []


def test_a_body_that_gives_an_outer_tensor_reads_it() -> None:
    text = """net (float[2] x, bool c) => (y) {
        a = Neg(x)
        y = If(c) <then_branch = t () => (p) { p = Neg(x) }, else_branch = e () => (a) { }>
    }"""
    model = text_model(text)
    editor = GraphEditor(model)
    assert editor.consumers("a") == [model.graph.node[1]]
    editor.rename("a", "b")
    assert editor.consumers("b") == [model.graph.node[1]]
    assert [a.g.output[0].name for a in model.graph.node[1].attribute] == ["p", "b"]


def test_an_editor_alone_changes_nothing() -> None:
    for model in (chain(), branches()):
        before = model.SerializeToString(deterministic=True)
        editor = GraphEditor(model)
        editor.constant("w")
        editor.constant("a")
        assert editor.remove_dead() == ()
        assert model.SerializeToString(deterministic=True) == before


def test_names_avoid_all_others() -> None:
    model = branches()
    model.graph.value_info.append(helper.make_tensor_value_info("noted", 1, []))
    editor = GraphEditor(model)
    for name in ("x", "w", "a", "p", "one", "inner", "choose", "y", "noted"):
        assert editor.unique_name(name) == f"{name}_1"
    assert [editor.unique_name("new") for _ in range(3)] == ["new", "new_1", "new_2"]


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_new_initializer(ir_version: int) -> None:
    model = chain(ir_version=ir_version)
    editor = GraphEditor(model)
    value = np.broadcast_to(np.float32(2), (4,))
    assert editor.add_initializer("w", value) == "w_1"
    assert editor.add_initializer("scalar", np.array(3)) == "scalar"
    found = initializers(model)
    np.testing.assert_array_equal(found["w_1"], value)
    assert found["scalar"].shape == ()
    np.testing.assert_array_equal(editor.constant("w_1"), value)
    listed = {value.name for value in model.graph.input}
    assert listed == ({"x", "w", "w_1", "scalar"} if ir_version == 3 else {"x"})
    check_model(model)


def by_two(prefix: str) -> SubgraphBuilder:
    """The weight W, as twice its half."""
    builder = SubgraphBuilder(prefix, np.dtype(np.float32))
    x = builder.conv(builder.input, W / 2, name="half")
    builder.output(builder.node("Add", [x, x], name="sum"))
    return builder


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_node_is_replaced(ir_version: int) -> None:
    model = chain(ir_version=ir_version)
    expected = run(model, {"x": X})[0]
    rest = without(model, "node", "initializer", "input")
    kept = [node(model, n).SerializeToString() for n in ("one", "act", "last")]
    editor = GraphEditor(model)
    editor.replace(node(model, "two"), by_two("two"))
    assert [n.name for n in model.graph.node] == ["one", "act", "two/half", "two/sum", "last"]
    assert [n.output[0] for n in model.graph.node] == ["a", "b", "two/half:0", "c", "y"]
    assert [n.SerializeToString() for n in (model.graph.node[i] for i in (0, 1, 4))] == kept
    assert set(initializers(model)) == {"w", "two.half.weight"}
    assert without(model, "node", "initializer", "input") == rest
    assert editor.producer("c") is model.graph.node[3]
    assert editor.consumers("c") == [model.graph.node[4]]
    assert [n.name for n in editor.consumers("b")] == ["two/half"]
    assert editor.remove_dead() == ()  # conv one still reads w

    editor.replace(node(model, "one"), by_two("two"))  # a prefix used twice
    assert editor.remove_dead() == ("w",)
    names = [v.name for v in model.graph.input]
    assert set(names) == (
        {"x", "two.half.weight", "two.half.weight_1"} if ir_version == 3 else {"x"}
    )
    check_model(model)
    assert is_sorted(model)
    # Halves and doubles are exact.
    np.testing.assert_array_equal(run(model, {"x": X})[0], expected)


def test_two_runs_give_the_same_bytes() -> None:
    found = []
    for _ in range(2):
        model = chain()
        editor = GraphEditor(model)
        for name in ("one", "two"):
            editor.replace(node(model, name), by_two(name))
        editor.remove_dead()
        found.append(model.SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_only_what_edits_left_without_use_goes() -> None:
    model = chain()
    graph = model.graph
    # Without use before: the user's own affair.
    graph.node.add(op_type="Neg", name="idle", input=["x"], output=["idle"])
    graph.initializer.add(name="unused", data_type=TensorProto.FLOAT, dims=[0])
    # Left without use by the edit: a chain of constants, and the notes on its tensors.
    constants = [
        helper.make_node("Transpose", ["v"], ["vt"], name="t1", perm=[1, 0, 2, 3]),
        helper.make_node("Transpose", ["vt"], ["vtt"], name="t2", perm=[1, 0, 2, 3]),
    ]
    for position, each in enumerate(constants):
        graph.node.insert(position, each)
    graph.initializer.add().CopyFrom(graph.initializer[0])
    graph.initializer[-1].name = "v"
    for name in ("vt", "vtt", "c", "idle"):
        graph.value_info.append(helper.make_tensor_value_info(name, 1, None))
        graph.quantization_annotation.add(tensor_name=name)
    node(model, "two").input[1] = "vtt"
    editor = GraphEditor(model)
    editor.set_input(node(model, "two"), 1, "w")
    assert editor.remove_dead() == ("t1", "t2", "v")
    assert [n.name for n in graph.node] == ["one", "act", "two", "last", "idle"]
    assert [t.name for t in graph.initializer] == ["w", "unused"]
    assert [v.name for v in graph.value_info] == ["c", "idle"]
    assert [a.tensor_name for a in graph.quantization_annotation] == ["c", "idle"]
    assert editor.remove_dead() == ()


def test_what_bodies_still_read_stays() -> None:
    model = branches()
    editor = GraphEditor(model)
    editor.replace(node(model, "one"), by_two("one"))
    assert editor.remove_dead() == ()
    assert "w" in initializers(model)
    feeds = {"x": X, "c": np.array(True)}
    np.testing.assert_array_equal(run(model, feeds)[0], run(branches(), feeds)[0])
    # With the node that has the bodies goes what only they read.
    editor.remove(node(model, "choose"))
    assert set(editor.remove_dead()) == {"w", "one/half", "one/sum", "one.half.weight"}


def test_outputs_and_inputs_of_the_model_stay() -> None:
    model = text_model("net (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Neg(y) }")
    editor = GraphEditor(model)
    editor.set_input(model.graph.node[1], 0, "x")
    assert editor.remove_dead() == ()
    assert len(model.graph.node) == 2
    editor.remove(model.graph.node[1])
    assert editor.remove_dead() == ()
    assert [v.name for v in model.graph.input] == ["x"]


def test_a_node_with_one_output_in_use_stays() -> None:
    text = "net (float[4] x) => (y, z) { a, b = Split(x) y = Neg(a) z = Neg(b) }"
    model = text_model(text)
    editor = GraphEditor(model)
    editor.set_input(model.graph.node[1], 0, "x")
    assert editor.remove_dead() == ()
    editor.set_input(model.graph.node[2], 0, "x")
    assert editor.remove_dead() == ("a",)


def test_a_tensor_gets_another_name_wherever_it_is_read() -> None:
    model = branches()
    before = {c: run(model, {"x": X, "c": np.array(c)})[0] for c in (True, False)}
    editor = GraphEditor(model)
    editor.rename("a", "other")
    assert editor.producer("a") is None
    assert editor.producer("other") is node(model, "one")
    assert [n.name for n in editor.consumers("other")] == ["choose"]
    check_model(model)
    for c, expected in before.items():
        np.testing.assert_array_equal(run(model, {"x": X, "c": np.array(c)})[0], expected)


def test_a_node_is_put_before_another() -> None:
    model = chain()
    editor = GraphEditor(model)
    new = helper.make_node("Neg", ["b"], ["neg"], name="neg")
    placed = editor.insert_before(node(model, "two"), new)
    editor.set_input(node(model, "two"), 0, "neg")
    assert [n.name for n in model.graph.node] == ["one", "act", "neg", "two", "last"]
    assert editor.producer("neg") is placed is model.graph.node[2]
    assert editor.unique_name("neg") == "neg_1"
    check_model(model)


def test_a_constant_is_overwritten_where_nobody_else_reads_it() -> None:
    model = conv_model(W, np.ones(4), ir_version=3, opset=9)
    model.graph.initializer[0].doc_string = "kept"
    editor = GraphEditor(model)
    editor.set_constant(model.graph.node[0], 1, 2 * W, base="base")
    assert [t.name for t in model.graph.initializer] == ["w", "b"]
    assert model.graph.initializer[0].doc_string == "kept"
    np.testing.assert_array_equal(initializers(model)["w"], 2 * W)
    # Another shape, or another reader: a new one.
    editor.set_constant(model.graph.node[0], 2, np.zeros((1, 4), np.float32), base="b")
    assert list(model.graph.node[0].input) == ["x", "w", "b_1"]
    assert editor.remove_dead() == ("b",)
    shared = chain()
    editor = GraphEditor(shared)
    editor.set_constant(node(shared, "two"), 1, 2 * W, base="w")
    assert [n.input[1] for n in shared.graph.node if n.op_type == "Conv"] == ["w", "w_1"]
    np.testing.assert_array_equal(initializers(shared)["w"], W)


def test_a_constant_becomes_an_initializer_of_its_name() -> None:
    text = """net (float[N,4,9,9] x) => (float[N,4,7,7] y) {
        k = Transpose<perm=[1,0,2,3]>(w)
        y = Conv(x, k)
    }"""
    model = text_model(text, {"w": W})
    expected = run(model, {"x": X})[0]
    editor = GraphEditor(model)
    editor.fold("k")
    assert editor.remove_dead() == ("w",)
    assert [n.op_type for n in model.graph.node] == ["Conv"]
    assert list(initializers(model)) == ["k"]
    check_model(model)
    np.testing.assert_array_equal(run(model, {"x": X})[0], expected)
    with pytest.raises(ValueError, match="not the one constant output"):
        editor.fold("y")


def test_doc_string_and_metadata_go_to_what_replaces_a_node() -> None:
    model = chain()
    model.ir_version = 10
    old = node(model, "two")
    old.doc_string = "the second"
    old.metadata_props.add(key="namespace", value="stage2")
    GraphEditor(model).replace(old, by_two("two"))
    check_model(model)
    for name in ("two/half", "two/sum"):
        new = node(model, name)
        assert new.doc_string == "the second"
        assert [(p.key, p.value) for p in new.metadata_props] == [("namespace", "stage2")]
    assert not node(model, "one").metadata_props


def test_what_a_node_says_of_itself_goes_before_what_is_carried_to_it() -> None:
    source = helper.make_node("Relu", ["x"], ["y"], doc_string="old")
    target = helper.make_node("Conv", ["x"], ["y"], doc_string="new")
    for key, value in (("a", "old"), ("b", "old")):
        source.metadata_props.add(key=key, value=value)
    target.metadata_props.add(key="a", value="new")
    carry_notes(source, target)
    assert target.doc_string == "new"
    assert [(p.key, p.value) for p in target.metadata_props] == [("a", "new"), ("b", "old")]
