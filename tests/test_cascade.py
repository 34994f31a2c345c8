"""Layers replaced one by one, trained back in between: better than all at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch", reason="torch is not installed: extra finetune")

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "finetune")]

from digits import accuracy, splits, trained

from onnx_lowrank import compress
from onnx_lowrank.cascade import cascade
from onnx_lowrank.cli import main
from onnx_lowrank.errors import PlanError
from onnx_lowrank.graph.io import load_model, save_model

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
