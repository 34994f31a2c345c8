from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_lowrank.cache import Cache
from onnx_lowrank.measure import remembered
from onnx_lowrank.measure.remembered import RememberedModel
from onnx_lowrank.runtime.engines import CPU
from onnx_lowrank.runtime.session import Session

Build = Callable[..., onnx.ModelProto]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the runs of sessions."""
    found: list[str] = []
    plain = Session.run

    def run(self: Session, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Any:
        found.append("run")
        return plain(self, feeds, outputs)

    monkeypatch.setattr(Session, "run", run)
    return found


def feeds(seed: int) -> dict[str, Any]:
    values = np.random.default_rng(seed).standard_normal((2, 3, 32, 32))
    return {"image": values.astype(np.float32)}


def test_the_same_inputs_are_run_once(residual_net: Build, tmp_path: Path, runs: list[str]) -> None:
    model = residual_net("N")
    expected = CPU.load(model).run(feeds(0))
    runs.clear()
    for _ in range(2):  # a second time by another object: as in another process
        loaded = RememberedModel(model, Cache(tmp_path)).load(CPU)
        found = loaded.run(feeds(0))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    assert len(runs) == 1
    loaded.run(feeds(1))
    assert len(runs) == 2


def test_another_model_is_run(residual_net: Build, tmp_path: Path, runs: list[str]) -> None:
    model, store = residual_net("N"), Cache(tmp_path)
    before = RememberedModel(model, store).load(CPU).run(feeds(0))
    other = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = next(t for t in other.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    after = RememberedModel(other, store).load(CPU).run(feeds(0))
    assert len(runs) == 2
    assert any(np.any(before[name] != after[name]) for name in before)


def test_large_outputs_are_computed_again(
    residual_net: Build, tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MOST_BYTES", 4)
    loaded = RememberedModel(residual_net("N"), Cache(tmp_path)).load(CPU)
    loaded.run(feeds(0))
    loaded.run(feeds(0))
    assert len(runs) == 2
