from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime import memory
from onnx_lowrank.runtime.engines import CPU
from onnx_lowrank.runtime.memory import measure_memory

linux = pytest.mark.skipif(not memory._STATUS.exists(), reason="no /proc/self/status")


def _product(path: Path, size: int) -> Path:
    model = parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1,{size}] x) => (float[1,{size}] y) {{ y = MatMul(x, w) }}
        """
    )
    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    return path


@linux
def test_memory_holds_the_weights(tmp_path: Path) -> None:
    held = {}
    for size in (64, 4096):
        path = _product(tmp_path / f"{size}.onnx", size)
        feeds = {"x": np.zeros((1, size), np.float32)}
        held[size] = measure_memory(path, feeds, engine=CPU.with_threads(1))
    small, large = held[64], held[4096]
    assert small is not None
    assert large is not None
    weights = 4 * 4096**2
    assert large.resident >= weights
    assert large.peak >= large.resident
    # Neither this process's memory nor the runtime itself is part of it.
    assert small.resident < weights
    assert large.baseline == pytest.approx(small.baseline, rel=0.5)
    assert set(large.to_dict()) == {"resident", "peak", "baseline", "device"}


@linux
def test_a_failure_of_the_process_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="could not be measured") as caught:
        measure_memory(path, {"x": np.zeros(1, np.float32)})
    assert "\n" not in str(caught.value)


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert measure_memory(tmp_path / "model.onnx", {}) is None
