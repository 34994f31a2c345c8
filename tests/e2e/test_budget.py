"""A search within a budget on a trained network: its verdict, its report, surviving a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnx_lowrank
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime.library import loads

MODELS = Path(__file__).parents[2] / "models"
COMMAND = [sys.executable, "-c", "from onnx_lowrank.cli import main; main()", "compress"]


def fetched(script: str, name: str) -> Path:
    done = subprocess.run(
        [sys.executable, MODELS / script, name], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Samples for the search and for the verdict, none in both."""
    data = np.load(fetched("datasets.py", "mnist5k") / "test.npz")
    order = np.random.default_rng(0).permutation(len(data["labels"]))
    folder = tmp_path_factory.mktemp("digits")
    paths = folder / "search.npz", folder / "verdict.npz"
    for path, part in zip(paths, (order[:1000], order[1000:3000]), strict=True):
        np.savez(path, images=data["images"][part], labels=data["labels"][part])
    return paths


def arguments(network: Path, digits: tuple[Path, Path], output: Path) -> list[str]:
    search, verdict = map(str, digits)
    return [
        *COMMAND,
        *(str(network), "-o", str(output), "--calibrate", search, "--data", verdict),
        *("--preprocess", "unit:mean=0.1307,std=0.3081", "--max-drop", "1", "--threads", "1"),
        "--json",
    ]


@pytest.mark.network
@pytest.mark.slow
def test_a_killed_search_goes_on_and_keeps_its_budget(
    digits: tuple[Path, Path], tmp_path: Path
) -> None:
    network, output = fetched("fetch.py", "mnist"), tmp_path / "small.onnx"
    cache = tmp_path / "cache"
    environment = {**os.environ, "ONNX_LOWRANK_CACHE": str(cache)}
    command = arguments(network, digits, output)
    killed = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while len(list(cache.glob("search/*.npz"))) < 20:
        assert killed.poll() is None, "the search ended before it could be killed"
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not output.exists()
    before = {path: path.stat().st_mtime_ns for path in cache.glob("search/*.*")}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was done again
    print(json.dumps({k: report["search"][k] for k in ("latency", "predicted_ratio", "quality")}))
    assert done.returncode == (0 if report["passed"] else 1)
    assert report["passed"] == output.exists()
    assert report["passed"] == (not report["failures"])
    verification = report["verification"]
    assert verification["samples"] == 2000  # none of those of the search
    assert verification["passed"] == (verification["accuracy"]["drop_points"] <= 1)
    assert all(each["high"] < 1 for each in report["search"]["layers"])
    # Samples are many: what was counted and what is expected decide alone.
    for each in report["search"]["explored"]:
        if max(each["drop"], each["expected_drop"]) <= 1:
            assert each["passed"]
    assert report["cost"]["total"]["mac_reduction"] > 1

    if report["passed"]:
        original, written = onnx.load(network), onnx.load(output)
        assert list(written.graph.input) == list(original.graph.input)
        assert list(written.graph.output) == list(original.graph.output)


@pytest.mark.network
@pytest.mark.slow
def test_candidates_of_all_forms_are_in_one_search(
    digits: tuple[Path, Path], tmp_path: Path
) -> None:
    if not loads():
        pytest.skip("the kernels are not built")
    search, verdict = digits
    found = onnx_lowrank.compress_to_budget(
        fetched("fetch.py", "mnist"),
        Budget(max_drop=1),
        calibration=search,
        data=verdict,
        preprocess="unit:mean=0.1307,std=0.3081",
        threads=1,
        cache_dir=tmp_path,
    )
    forms = {name: each.form.name for name, each in found.search.chosen.items()}
    assert found.compressed.plan.forms == forms
    nodes = {node.domain for node in found.compressed.model.graph.node}
    assert ("onnx_lowrank" in nodes) == ("portable" in forms.values())
    # The plan gives the same model again.
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(found.compressed.plan.to_dict()))
    again = onnx_lowrank.compress(fetched("fetch.py", "mnist"), plan=plan, verification=False)
    ours, theirs = (
        [(n.domain, n.op_type, n.name) for n in each.model.graph.node]
        for each in (found.compressed, again)
    )
    assert ours == theirs


def test_a_network_that_cannot_gain_is_said_so(tmp_path: Path) -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[N,8,12,12] x) => (float[N,8] y) {
            a = Conv<group=8, pads=[1,1,1,1]>(x, w)
            b = GlobalAveragePool(a)
            y = Flatten(b)
        }
        """
    )
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 1, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.node[0].name = "depthwise"
    feeds = [{"x": rng.standard_normal((1, 8, 12, 12)).astype(np.float32)} for _ in range(9)]
    result = onnx_lowrank.compress_to_budget(
        model, Budget(max_drop=1), data=feeds, cache_dir=tmp_path
    )
    assert not result.passed
    assert "no layer can be approximated" in result.failures[0]
    (decision,) = result.compressed.plan.decisions
    assert decision.scheme is None
    assert "depthwise" in (decision.reason or "")
    assert result.compressed.model.graph.node == model.graph.node
