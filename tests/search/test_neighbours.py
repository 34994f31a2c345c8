"""Which tensors layers hand to each other, and what a change of layout on them costs."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.search.neighbours import Edge, Sides, conflicts, edges


def net(lines: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> net (float[N,8,12,12] x) => (float[N,8] y) '
        f"{{ {lines} }}"
    )
    for name, shape in weights.items():
        value = np.ones(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def found(model: onnx.ModelProto) -> dict[tuple[str | None, tuple[int, ...]], Edge]:
    convs = [layer for layer in find_layers(model) if layer.op == "Conv"]
    return {
        (edge.producer, edge.shape): edge for edge in edges(model, convs, {"x": (2, 8, 12, 12)})
    }


def test_a_layout_passes_activations_and_pools() -> None:
    each = found(
        net(
            "a = Conv(x, w) b = Relu(a) c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b) "
            "d = Conv(c, w) e = GlobalAveragePool(d) y = Flatten(e)",
            w=(8, 8, 1, 1),
        )
    )
    assert each[None, (2, 8, 12, 12)].readers == ["a"]
    assert each["a", (2, 8, 6, 6)].readers == ["d"]
    assert not each["a", (2, 8, 6, 6)].read_plainly
    assert each["d", (2, 8, 1, 1)].read_plainly  # a Flatten reads it
    assert len(each) == 3


def test_a_sum_holds_the_values_of_all_that_it_adds() -> None:
    each = found(
        net(
            "a = Conv(x, w) b = Conv(a, w) c = Add(a, b) d = Conv(c, w) s = Softmax(c) "
            "z = Add(d, s) e = GlobalMaxPool(z) y = Flatten(e)",
            w=(8, 8, 1, 1),
        )
    )
    whole = (2, 8, 12, 12)
    assert each[None, whole].readers == ["a"]
    between = edges(
        net("a = Conv(x, w) b = Conv(a, w) c = Add(a, b) y = Conv(c, w)", w=(8, 8, 1, 1)),
        [],
        {"x": whole},
    )
    assert between == ()  # where no layer has a layout of its own, nothing is paid
    assert each["b", whole].readers == ["d"]
    assert each["b", whole].read_plainly  # by the Softmax
    assert each["d", (2, 8, 1, 1)].read_plainly


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_tensor_is_reordered_once_where_it_is_read_otherwise_than_written(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["p", "q", "r"]
    sides: dict[str, Sides] = {
        name: (rng.random(size) < 0.5, rng.random(size) < 0.5)
        for name, size in (("p", 2), ("q", 3), ("r", 2), ("fixed", 1), ("other", 1))
    }
    reorders = {(1, n, 1, 1): float(rng.uniform(0, 1)) for n in range(4)}
    between = [
        Edge(
            producer,
            (1, int(rng.integers(5)), 1, 1),  # of the last, nothing was measured
            [str(name) for name in rng.choice(list(sides), rng.integers(3), replace=False)],
            bool(rng.random() < 0.3),
        )
        for producer in (None, *sides)
    ]
    paid = conflicts(between, sides, names, reorders)

    def expected(picks: tuple[int, ...]) -> float:
        at = dict(zip(names, picks, strict=True))
        total = 0.0
        for edge in between:
            written = edge.producer is None or sides[edge.producer][1][at.get(edge.producer, 0)]
            read = [bool(sides[name][0][at.get(name, 0)]) for name in edge.readers]
            read += [True] * edge.read_plainly
            otherwise = [plain for plain in read if plain != written]
            total += reorders.get(edge.shape, 0.0) if otherwise else 0.0
        return total

    all_picks = list(itertools.product(range(2), range(3), range(2)))
    ours = [sum(each.of(picks) for each in paid) for picks in all_picks]
    # What is paid whatever is picked is part of the original's time.
    constant = [expected(picks) - one for picks, one in zip(all_picks, ours, strict=True)]
    np.testing.assert_allclose(constant, constant[0], atol=1e-12)
