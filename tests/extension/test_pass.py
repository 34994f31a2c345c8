"""A pass from the outside: a constant factor behind a layer becomes part of its weight."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from builders import run, text_model
from counting import latencies

from onnx_lowrank import Budget, compress, compress_to_budget
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.rewriting.passes.base import PassResult
from onnx_lowrank.rewriting.passes.normalize import NORMALISATION, normalised


class FoldScalePass:
    """Fold a Mul by one constant number behind a layer without a bias into its weight.

    Refused: a Mul by anything else, and a layer that anything else reads.
    """

    name: ClassVar[str] = "fold-scale"

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)

    def run(self, model: onnx.ModelProto) -> PassResult:
        editor = GraphEditor(model)
        changes = []
        for layer in find_layers(model):
            node = layer.node
            readers = editor.consumers(node.output[0])
            if layer.name not in self.layers or len(readers) != 1 or len(node.input) > 2:
                continue
            mul = readers[0]
            if not is_op(mul, "Mul") or mul.input[0] != node.output[0]:
                continue
            scale, weight = editor.constant(mul.input[1]), editor.constant(node.input[1])
            if scale is None or weight is None or scale.size != 1:
                continue
            editor.set_constant(node, 1, weight * scale.item(), base=f"{layer.name}.scaled")
            result = mul.output[0]
            editor.remove(mul)
            editor.rename(node.output[0], result)
            changes.append(f"{layer.name}: takes the factor {scale.item():g} into its weight")
        editor.remove_dead()
        return PassResult(bool(changes), tuple(changes))


@pytest.fixture
def fold_scale() -> Iterator[None]:
    with NORMALISATION.adding(FoldScalePass):
        yield


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    low = rng.standard_normal((16, 3)) @ rng.standard_normal((3, 72))
    low += 0.05 * rng.standard_normal(low.shape)
    weights: dict[str, Any] = {
        "w1": low.reshape(16, 8, 3, 3).astype(np.float32),
        "w2": rng.standard_normal((16, 5)).astype(np.float32),
        "half": np.float32(0.5),
    }
    model = text_model(
        """
        net (float[N,8,12,12] x) => (float[N,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1)
            b = Mul(a, half)
            c = GlobalAveragePool(b)
            d = Flatten(c)
            y = MatMul(d, w2)
        }
        """,
        weights,
    )
    model.graph.node[0].name = "conv"
    return model


def muls(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Mul" for node in model.graph.node)


def test_it_changes_nothing_that_is_computed(fold_scale: None) -> None:
    model = network()
    changed, result = normalised(model, ["conv"])
    assert [c for c in result.changes if "factor 0.5" in c]
    assert muls(changed) == 0
    x = {"x": np.random.default_rng(1).standard_normal((2, 8, 12, 12)).astype(np.float32)}
    np.testing.assert_allclose(run(changed, x)[0], run(model, x)[0], rtol=1e-5, atol=1e-5)
    again, second = normalised(changed, ["conv"])
    assert not second.modified
    assert again == changed
    untouched, _ = normalised(model, [])
    assert untouched == model


def test_a_plan_and_its_report_show_it(fold_scale: None) -> None:
    result = compress(network(), plan=["conv=channel:R=3"])
    assert muls(result.model) == 0
    assert any("takes the factor 0.5" in change for change in result.report.changes)


def test_without_it_the_mul_stays() -> None:
    assert muls(compress(network(), plan=["conv=channel:R=3"]).model) == 1


def test_a_search_goes_by_it(fold_scale: None, tmp_path: Path) -> None:
    model = network()
    rng = np.random.default_rng(1)
    data = [{"x": rng.standard_normal((4, 8, 12, 12)).astype(np.float32)} for _ in range(12)]
    result = compress_to_budget(
        model,
        Budget(min_sqnr_db=10),
        data=data,
        cache_dir=tmp_path,
        latency=latencies(model),
    )
    assert result.passed, result.failures
    assert "conv" in result.compressed.plan.chosen
    assert muls(result.compressed.model) == 0
