from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import text_model

import onnx_lowrank
from onnx_lowrank.cache import Cache
from onnx_lowrank.errors import DataError
from onnx_lowrank.estimation import sample_layers
from onnx_lowrank.estimation.kept import last_latencies
from onnx_lowrank.estimation.result import Estimate
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.report.estimate_tables import verdict
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.schemes.dense import DenseFactors

SIDE, CHANNELS, RANK = 24, 64, 6
NET = f"""
net (float[N,3,{SIDE},{SIDE}] x) => (float[N,8] y) {{
    a = Conv<pads=[1,1,1,1]>(x, w1)
    b = Relu(a)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    d = Relu(c)
    e = Conv<pads=[1,1,1,1]>(d, w3)
    f = GlobalAveragePool(e)
    g = Flatten(f)
    y = Gemm(g, w4)
}}
"""


@pytest.fixture(autouse=True)
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the latency model be fitted to few small layers: what it says is not tested here."""
    monkeypatch.setattr(sample_layers, "CONVS", ((64, 64, 3, 14, 1), (32, 64, 3, 28, 1)))
    monkeypatch.setattr(sample_layers, "PRODUCTS", ((64, 64),))
    monkeypatch.setattr(sample_layers, "INT8", ((32, 3, 14), (64, 3, 14)))


def network(rank: int) -> onnx.ModelProto:
    """Outputs of the two inner layers vary in about `rank` directions."""
    rng = np.random.default_rng(0)

    def low(channels: int) -> np.ndarray:
        left = rng.standard_normal((CHANNELS, rank)) / np.sqrt(rank)
        return np.einsum("fr,rcij->fcij", left, rng.standard_normal((rank, channels, 3, 3)) / 24)

    model = text_model(
        NET,
        {
            name: value.astype(np.float32)
            for name, value in {
                "w1": rng.standard_normal((CHANNELS, 3, 3, 3)) / 5,
                "w2": low(CHANNELS),
                "w3": low(CHANNELS),
                "w4": rng.standard_normal((CHANNELS, 8)),
            }.items()
        },
    )
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def images(count: int) -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(1).standard_normal((count, 1, 3, SIDE, SIDE)).astype(np.float32)
    return [{"x": each} for each in x]


def estimated(model: onnx.ModelProto, folder: Path, count: int = 6) -> Estimate:
    return onnx_lowrank.estimate(model, data=images(count), threads=1, cache_dir=folder)


def test_layers_of_low_rank_lose_nothing_and_others_do(tmp_path: Path) -> None:
    low, full = (estimated(network(rank), tmp_path) for rank in (RANK, CHANNELS))
    ratios = {point.sqnr_db: point.ratio for point in low.frontier}
    assert ratios[40] < 0.9
    others = {point.sqnr_db: point.ratio for point in full.frontier}
    assert others.get(40, 1.0) > ratios[40]
    for found in (low, full):
        frontier = [point.ratio for point in found.frontier]
        assert frontier == sorted(frontier)  # the less may be lost, the longer it takes
        assert all(point.low <= point.ratio <= point.high for point in found.frontier)
        assert sum(layer.share for layer in found.layers) <= 1 + 1e-9
        assert found.samples >= 2
        assert found.int8 is not None
        assert 20 < found.int8.sqnr_db < 80
    assert verdict(low).startswith("low rank may pay: ")


def test_the_latency_model_is_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(RANK)
    estimated(model, tmp_path)
    kept = last_latencies(Cache(tmp_path / "search"))
    assert kept is not None
    assert kept[0].knows(sample_layers.work_of(*_dense(model)))
    monkeypatch.setattr(sample_layers, "_samples", None)  # would raise
    estimated(model, tmp_path)
    rows = {row.layer.name: row for row in onnx_lowrank.inspect(model, cache_dir=tmp_path)}
    assert 0 < (rows["c"].time_at_half or 0) <= 1
    other = onnx_lowrank.inspect(model, cache_dir=tmp_path / "empty")
    assert all(row.time_at_half is None for row in other)


def _dense(model: onnx.ModelProto) -> tuple[Any, ...]:
    spec = find_layers(model)[1].spec
    assert spec is not None
    return DenseFactors(np.zeros(spec.weight_shape)), spec, STANDARD, spec.macs or 0


def test_where_nothing_is_faster_neither_pays() -> None:
    nothing = Estimate(1e-3, (), None, (), 1.2, 4)
    assert verdict(nothing) == "neither low rank nor 8-bit Convs will pay here"


def test_one_sample_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an estimate takes 2 samples or more; add data"):
        estimated(network(RANK), tmp_path, 1)
