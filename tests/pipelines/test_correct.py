"""Means and deviations corrected over data, in Python and on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_lowrank import compress, correct
from onnx_lowrank.cli import main
from onnx_lowrank.errors import DataError, ProviderError
from onnx_lowrank.graph.io import load_model, save_model

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "training")]


def test_models_files_and_bytes_are_one(residual_net, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    original = residual_net("N")
    compressed = compress(original, plan=["fc1=svd:R=9"], verification=False).model
    before = compressed.SerializeToString(deterministic=True)
    images = np.random.default_rng(3).standard_normal((10, 3, 32, 32)).astype(np.float32)
    data = [{"image": images}]
    found = correct(original, compressed, data=data)
    assert compressed.SerializeToString(deterministic=True) == before
    assert [each.tensor for each in found.corrections] == ["a11", "scores"]
    onnx.checker.check_model(found.model)
    save_model(original, tmp_path / "net.onnx")
    save_model(compressed, tmp_path / "small.onnx")
    other = correct(tmp_path / "net.onnx", (tmp_path / "small.onnx").read_bytes(), data=data)
    other.save(tmp_path / "out.onnx")
    assert load_model(tmp_path / "out.onnx") == found.model
    with pytest.raises(DataError, match="lacks input 'image'"):
        correct(original, compressed, data=[{"images": images}])
    with pytest.raises(ProviderError, match="a correction takes onnxruntime"):
        correct(original, compressed, data=data, engine="openvino")


def test_accuracy_comes_back_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed: extra finetune")
    from digits import accuracy, splits, trained

    data = splits(tmp_path)
    original = trained(data)
    plan = ["conv1=spatial:R=1", "conv2=tucker2:R1=5,R2=6"]
    compressed = compress(original, plan=plan, verification=False).model
    save_model(original, tmp_path / "net.onnx")
    save_model(compressed, tmp_path / "small.onnx")
    files = [str(tmp_path / name) for name in ("net.onnx", "small.onnx")]
    command = ["correct", *files, "--data", str(data["train-unlabelled"])]
    monkeypatch.setattr(
        sys, "argv", ["onnx-lowrank", *command, "-o", str(tmp_path / "out.onnx"), "--limit", "500"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "scores" in capsys.readouterr().out
    lost = accuracy(original, data["test"]) - accuracy(compressed, data["test"])
    left = accuracy(original, data["test"]) - accuracy(
        load_model(tmp_path / "out.onnx"), data["test"]
    )
    # Standard error of a share of 397 images: 0.025.
    assert lost > 0.1
    assert left < lost - 2 * 0.025
