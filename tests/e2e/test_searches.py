"""Searches on small networks of many shapes, end to end: each ends with a verdict that holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from counting import latencies
from small_networks import NETWORKS

from onnx_lowrank import compress_to_budget, verify
from onnx_lowrank.cli import main
from onnx_lowrank.fitting.model import ModelFits
from onnx_lowrank.fitting.output_refit import refit_outputs
from onnx_lowrank.measure.verification import Tolerance
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.runtime import bench
from onnx_lowrank.search import evaluator
from onnx_lowrank.search.settings import SETTINGS, RankSteps

SPLIT = "a Split, a Concat, a residual, two outputs"
LEAST = 12.0
# Two ranks of each scheme, and little time for what is timed: the steps are all taken.
SHORT = replace(
    SETTINGS,
    shares=(0.5, 0.2),
    rank_steps={"cp": RankSteps(()), "tucker2": RankSteps((0.2,))},
    model_seconds=0.05,
    least_saving=0.0,
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of runs are short too."""
    monkeypatch.setattr(bench, "BLOCK_SECONDS", 0.0005)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_search_ends_with_a_verdict_that_holds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NETWORKS[name]()
    model = network.model()
    refits: list[ModelFits] = []

    def recorded(*args: Any, **options: Any) -> ModelFits:
        refits.append(refit_outputs(*args, **options))
        return refits[-1]

    monkeypatch.setattr(evaluator, "refit_outputs", recorded)
    result = compress_to_budget(
        model,
        Budget(min_sqnr_db=LEAST),
        data=network.data(120),  # of fewer, the search's own say little of the others
        input_shapes=network.sizes or None,
        latency=latencies(model, network.sizes or None, SHORT),
        cache_dir=tmp_path,
        settings=SHORT,
    )
    report = result.compressed.report
    for layer, reason in network.kept.items():
        assert report.kept[layer].startswith(reason)
    assert len(report.kept) + len(result.compressed.plan.chosen) == len(report.cost.layers)
    # The layers' inputs in the compressed network were found, part by part, for all of them.
    assert refits
    assert [each.failed for each in refits] == [{}] * len(refits)
    assert result.passed, result.failures
    assert result.compressed.plan.chosen
    path = tmp_path / "small.onnx"
    result.compressed.save(path)
    new = verify(
        model, path, data=network.data(16, seed=1), tolerance=Tolerance(min_sqnr_db=LEAST - 2)
    )
    assert new.passed, new.failures


@pytest.mark.parametrize("lowering", ["standard", "portable", "auto"])
def test_a_search_by_the_clock_ends_with_a_verdict(lowering: Any, tmp_path: Path) -> None:
    network = NETWORKS[SPLIT]()
    result = compress_to_budget(
        network.model(),
        Budget(min_sqnr_db=LEAST),
        data=network.data(24),
        cache_dir=tmp_path,
        threads=1,
        lowering=lowering,
        keep=["c1", "y"],
        settings=SHORT,
    )
    report = result.compressed.report.verification
    assert report is None or report.passed or result.failures
    assert (report is None) == (not result.compressed.plan.chosen)
    assert not {"c1", "y"} & result.compressed.plan.chosen.keys()


def test_the_command_line_keeps_layers_out_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = NETWORKS[SPLIT]()
    model = network.model()
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "latency.json").write_text(json.dumps(latencies(model).to_dict()))
    for name, seed in (("data", 0), ("other", 1)):
        values = np.concatenate([each["x"] for each in network.data(40, seed=seed)])
        np.savez(tmp_path / f"{name}.npz", x=values)
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["onnx-lowrank", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return code

    search = ["compress", "net.onnx", "-o", "small.onnx", "--min-sqnr", str(LEAST)]
    search += ["--data", "data.npz", "--latency", "latency.json", "--json"]
    assert run(*search, "--layer", "c[12]=keep") == 0
    report = json.loads(capsys.readouterr().out)
    kept = {each["name"]: each["reason"] for each in report["kept"]}
    assert {kept["c1"], kept["c2"]} == {"kept as asked"}
    assert {each["name"] for each in report["fits"]} <= {"c3", "c4", "y"}
    assert run("verify", "net.onnx", "small.onnx", "--data", "other.npz", "--min-sqnr", "10") == 0
    assert run(*search, "--layer", "*=keep") == 2
    assert "every layer that could be approximated is to be kept" in capsys.readouterr().err
    assert run(*search, "--layer", "c5=keep") == 2
    assert "no layer is called 'c5'; did you mean" in capsys.readouterr().err
