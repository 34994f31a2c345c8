"""Data of which too few are there to be divided among fits, search and verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from counting import latencies
from onnx import numpy_helper, parser

from onnx_lowrank import compress_to_budget
from onnx_lowrank.cli import main
from onnx_lowrank.errors import DataError
from onnx_lowrank.planning.budget import Budget

Build = Callable[..., onnx.ModelProto]
FAST = Budget(min_speedup=1.3)
NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,3,32,32] image) => (float[N,8] y) {
    a = Conv(image, w)
    b = GlobalAveragePool(a)
    y = Flatten(b)
}
"""


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)


def search(model: onnx.ModelProto, folder: Path, count: int, **options: Any) -> Any:
    feeds = [{"image": image[None]} for image in images(count)]
    return compress_to_budget(model, FAST, data=feeds, cache_dir=folder, **options)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_samples_are_refused_by_their_number(
    residual_net: Build, tmp_path: Path, count: int
) -> None:
    there = "here is 1" if count == 1 else f"here are {count}"
    with pytest.raises(DataError, match=f"search and verdict .* at least 4 .* {there}; add data"):
        search(residual_net("N"), tmp_path, count)


def test_a_limit_may_be_what_leaves_too_few(residual_net: Build, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least 4 .* here are 3; ask for more"):
        search(residual_net("N"), tmp_path, 20, limit=3)


def test_with_a_verdict_of_its_own_two_are_needed(residual_net: Build, tmp_path: Path) -> None:
    calibration = [{"image": images(1)}]
    with pytest.raises(DataError, match=r"fits and search .* at least 2 .* here is 1; add data"):
        search(residual_net("N"), tmp_path, 5, calibration=calibration)


@pytest.mark.slow
def test_the_fewest_that_are_said_suffice(tmp_path: Path) -> None:
    model = parser.parse_model(NET)
    weight = np.random.default_rng(1).standard_normal((8, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    found = search(model, tmp_path, 4, latency=latencies(model), lowering="standard")
    report = found.compressed.report.verification
    assert report is not None
    assert report.samples == 1


def test_the_command_line_says_it_in_one_line(
    residual_net: Build,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx.save(residual_net("N"), tmp_path / "net.onnx")
    np.savez(tmp_path / "tiny.npz", image=images(2))
    command = ["compress", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "small.onnx")]
    command += ["--min-speedup", "1.5", "--data", str(tmp_path / "tiny.npz")]
    monkeypatch.setattr("sys.argv", ["onnx-lowrank", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "at least 4 are needed" in line
    assert "here are 2" in line
