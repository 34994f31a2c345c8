"""Bounds on parameters and on the file hold for what is stored, in the type it is stored in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import add_weights, text_model
from counting import latencies

from onnx_lowrank.errors import PlanError
from onnx_lowrank.graph.io import serialised_size
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.pipelines.budget_result import BudgetResult
from onnx_lowrank.pipelines.within_budget import compress_to_budget
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.search.knapsack import Together
from onnx_lowrank.search.sizes import freed

C = 16


def low_rank(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((C, 4)) @ rng.standard_normal((4, C * 9))
    return np.asarray(weight / np.linalg.norm(weight, axis=1, keepdims=True)).reshape(C, C, 3, 3)


def network(middle: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = text_model(
        f"net (float[N,{C},8,8] x) => (float[N,{C},p,q] y) {{ {middle} }}", ir_version=8
    )
    add_weights(model, weights)
    return model


def shared_net() -> onnx.ModelProto:
    return network(
        "[one] a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a)"
        " [two] c = Conv<pads=[1,1,1,1]>(b, w) d = Relu(c) [three] y = Conv<pads=[1,1,1,1]>(d, v)",
        w=low_rank(0).astype(np.float32),
        v=low_rank(1).astype(np.float32),
    )


def stored_small_net() -> onnx.ModelProto:
    """Return a network whose weights are stored in a byte each."""
    scale = np.float32(0.01)
    return network(
        "ww = DequantizeLinear(w, s) [one] a = Conv<pads=[1,1,1,1]>(x, ww) b = Relu(a)"
        " vv = DequantizeLinear(v, s) [two] y = Conv<pads=[1,1,1,1]>(b, vv)",
        w=np.clip(low_rank(0) / scale, -127, 127).astype(np.int8),
        v=np.clip(low_rank(1) / scale, -127, 127).astype(np.int8),
        s=np.array(scale),
    )


def search(model: onnx.ModelProto, folder: Path, **budget: Any) -> BudgetResult:
    x = np.random.default_rng(5).standard_normal((24, 4, C, 8, 8)).astype(np.float32)
    return compress_to_budget(
        model,
        Budget(**budget),
        data=[{"x": part} for part in x],
        cache_dir=folder,
        latency=latencies(model),
    )


def test_what_replaced_layers_free() -> None:
    size = 4 * C * C * 9
    found = freed(find_layers(shared_net()), ["one", "two", "three"])
    assert found.params == (0, 0, C * C * 9)
    assert found.bytes == (0, 0, size)
    assert found.shared_params == (Together((0, 1), C * C * 9),)
    assert found.shared_bytes == (Together((0, 1), size),)
    assert found.base_params == 2 * C * C * 9
    # A layer that cannot be replaced keeps what it reads.
    found = freed(find_layers(shared_net()), ["one", "three"])
    assert (found.params, found.shared_params) == ((0, C * C * 9), ())


def test_a_bound_on_parameters_counts_a_shared_weight_once(tmp_path: Path) -> None:
    result = search(shared_net(), tmp_path, params=0.5)
    assert result.passed, result.failures
    total = result.compressed.report.cost.total
    weights = [t for t in result.compressed.model.graph.initializer if len(t.dims) == 4]
    assert total.params == 2 * C * C * 9
    assert total.params_new == sum(int(np.prod(tensor.dims)) for tensor in weights)
    assert total.params_new <= 0.5 * total.params


@pytest.mark.parametrize(
    ("make", "share"),
    [(shared_net, 0.45), (shared_net, 0.3), (stored_small_net, 0.8), (stored_small_net, 0.6)],
)
def test_a_bound_on_the_file_is_one_on_what_is_written(
    make: Callable[[], onnx.ModelProto], share: float, tmp_path: Path
) -> None:
    model = make()
    before = serialised_size(model)
    # Of weights of a byte each, float32 factors of half as many numbers would be a larger file.
    result = search(model, tmp_path, size_mb=share * before / 1e6)
    sizes = result.compressed.report.file_bytes
    assert sizes is not None
    assert result.passed, result.failures
    result.compressed.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size == sizes.after <= share * before
    assert sizes.before == before


def test_a_file_that_cannot_be_so_small_fails(tmp_path: Path) -> None:
    result = search(stored_small_net(), tmp_path, size_mb=0.001)
    sizes = result.compressed.report.file_bytes
    assert sizes is not None
    assert f"its file has {sizes.after / 1e6:.6g} MB, not 0.001" in result.failures
    assert not result.passed


def test_a_bound_that_cannot_be_checked_is_refused_before_the_search(tmp_path: Path) -> None:
    model = network(
        "[one] a = Conv<pads=[1,1,1,1]>(x, w) t = Transpose<perm=[2,0,3,1]>(a)"
        " r = Reshape(t, n) [rnn] h = LSTM<hidden_size=8>(r, lw, lr) [two] y = Conv(a, w)",
        w=low_rank(0).astype(np.float32),
        n=np.array([-1, 1, C]),
        lw=np.ones((1, 32, C), np.float32),
        lr=np.ones((1, 32, 8), np.float32),
    )
    with pytest.raises(PlanError, match="multiply-adds of layer 'rnn' cannot be known"):
        search(model, tmp_path, macs=0.5)
