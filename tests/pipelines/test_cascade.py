"""Layers replaced one by one, trained back in between: better than all at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="torch is not installed: extra finetune")

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "training")]

from digits import accuracy, splits, trained

from onnx_lowrank import compress
from onnx_lowrank.cli import main
from onnx_lowrank.errors import PlanError
from onnx_lowrank.graph.io import load_model, save_model
from onnx_lowrank.pipelines.cascade import cascade

PLAN = ["conv1=spatial:R=1", "conv2=tucker2:R1=4,R2=5"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return splits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def model(data: dict[str, Path]) -> onnx.ModelProto:
    return trained(data)


def test_it_loses_little_of_what_fits_alone_lose(
    model: onnx.ModelProto, data: dict[str, Path]
) -> None:
    before = model.SerializeToString()
    calibrated = compress(
        model,
        plan=PLAN,
        verification=False,
        calibration=data["train-unlabelled"],
        calibration_limit=300,
    ).model
    result = cascade(
        model, plan=PLAN, data=data["train"], val=data["val"], epochs=2, rate=3e-3, batch=32
    )
    assert model.SerializeToString() == before
    assert [(s.layer, s.scheme) for s in result.stages] == [tuple(p.split("=", 1)) for p in PLAN]
    lost = accuracy(model, data["test"]) - accuracy(calibrated, data["test"])
    left = accuracy(model, data["test"]) - accuracy(result.model, data["test"])
    assert lost > 0.1
    assert left < lost / 2
    for stage in result.stages:
        assert stage.tuned.rank >= stage.fitted.rank
    # The structure is that of the plan, whose cost is told.
    shapes = {tuple(t.dims) for t in result.model.graph.initializer}
    assert shapes == {tuple(t.dims) for t in calibrated.graph.initializer}
    assert result.macs is not None
    assert result.macs_new is not None
    assert result.macs_new < result.macs


def test_a_plan_that_replaces_nothing_is_refused(
    model: onnx.ModelProto, data: dict[str, Path]
) -> None:
    with pytest.raises(PlanError, match="no layer is replaced"):
        cascade(model, plan=["*=keep"], data=data["train"], val=data["val"])
    plan = [f"{PLAN[0]}@standard", f"{PLAN[1]}@portable"]
    with pytest.raises(PlanError, match="a cascade trains standard ops; leave out @portable for"):
        cascade(model, plan=plan, data=data["train"], val=data["val"])


def test_a_killed_process_goes_on_to_the_same_end(
    model: onnx.ModelProto, data: dict[str, Path], tmp_path: Path
) -> None:
    """SIGKILL while the second layer's network is trained; then the same call again."""
    options: dict[str, Any] = {"epochs": 3, "rate": 3e-3, "batch": 8}
    whole = cascade(model, plan=PLAN, data=data["train"], val=data["val"], **options)
    save_model(model, tmp_path / "net.onnx")
    folder = tmp_path / "stages"
    call = "from onnx_lowrank.cli import main; main()"
    arguments = ["cascade", tmp_path / "net.onnx", "-o", tmp_path / "out.onnx"]
    arguments += [part for rule in PLAN for part in ("--layer", rule)]
    arguments += ["--data", data["train"], "--val", data["val"], "--checkpoint", folder]
    arguments += [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(
        [sys.executable, "-c", call, *map(str, arguments), "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as many as this process trains with
    )
    trainings: set[str] = set()
    while len(trainings) < 2:  # the first layer's, then the second's
        assert process.poll() is None, "it ended before it could be killed"
        trainings |= {path.name for path in folder.glob("*-training.npz")}
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out.onnx").exists()

    steps: list[str] = []
    resumed = cascade(
        tmp_path / "net.onnx",
        plan=PLAN,
        data=data["train"],
        val=data["val"],
        **options,
        checkpoint=folder,
        progress=lambda step, done, total: steps.append(step),
    )
    # One thread adds in one order: the same bits.
    assert resumed.model.SerializeToString() == whole.model.SerializeToString()
    assert resumed.stages == whole.stages
    assert not [step for step in steps if step.startswith("conv1")]
    first, *_ = (step for step in steps if "epoch" in step)
    assert first.startswith("conv2: epoch ")
    # 125 steps an epoch, the first of them kept after 100.
    assert len([step for step in steps if "epoch" in step]) <= 3 * 125 - 100
    assert not list(folder.glob("*-training.npz"))


def test_stages_are_taken_by_all_that_they_depend_on(
    model: onnx.ModelProto, data: dict[str, Path], tmp_path: Path
) -> None:
    def stages_made(plan: list[str], train: Path, **options: Any) -> list[str]:
        steps: list[str] = []
        cascade(
            model,
            plan=plan,
            data=train,
            val=data["val"],
            limit=64,
            statistics_limit=32,
            **options,
            checkpoint=tmp_path / "stages",
            progress=lambda step, done, total: steps.append(step),
        )
        return sorted({step.split(":")[0] for step in steps if ": epoch" in step})

    with np.load(data["train"]) as arrays:
        changed = arrays["labels"].copy()
        changed[:] = (changed + 1) % 10
        np.savez(tmp_path / "other.npz", image=arrays["image"], labels=changed)
    assert stages_made(PLAN, data["train"]) == ["conv1", "conv2"]
    assert stages_made(PLAN, data["train"]) == []
    assert stages_made([PLAN[0], "conv2=channel:R=3"], data["train"]) == ["conv2"]
    assert stages_made(["conv1=spatial:R=2", PLAN[1]], data["train"]) == ["conv1", "conv2"]
    assert stages_made(PLAN, tmp_path / "other.npz") == ["conv1", "conv2"]
    for options in ({"rate": 1e-5}, {"seed": 1}, {"part": "factors"}, {"loss": "labels"}):
        assert stages_made(PLAN[:1], data["train"], **options) == ["conv1"]


def test_training_that_is_not_finite_keeps_the_fits(
    model: onnx.ModelProto, data: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"rate": 1e20, "limit": 200, "checkpoint": tmp_path / "stages"}
    result = cascade(model, plan=PLAN, data=data["train"], val=data["val"], **options)
    assert [stage.tuned for stage in result.stages] == [stage.fitted for stage in result.stages]
    for tensor in result.model.graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor)).all()
    again = cascade(model, plan=PLAN, data=data["train"], val=data["val"], **options)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_on_the_command_line_without_labels(
    model: onnx.ModelProto,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(model, tmp_path / "net.onnx")
    layers = [part for rule in PLAN for part in ("--layer", rule)]
    sources = ["--data", str(data["train-unlabelled"]), "--val", str(data["val-unlabelled"])]
    common = ["onnx-lowrank", "cascade", str(tmp_path / "net.onnx"), *layers, *sources]
    options = ["--limit", "500", "--statistics-limit", "200", "-o", str(tmp_path / "out.onnx")]
    for form in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*common, *options, *form])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        out = capsys.readouterr().out
        if form:
            report = json.loads(out)
            assert [stage["layer"] for stage in report["stages"]] == ["conv1", "conv2"]
            assert report["stages"][0]["tuned"]["accuracy"] is None
        else:
            assert "the share of samples with the original's class" in out
    onnx.checker.check_model(load_model(tmp_path / "out.onnx"), full_check=True)
