"""What training and correction leave in a report, from runs of the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_lowrank.report import html as report

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def trained(
    runs: dict[str, Path],
    network: Path,
    printed: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    made, folder = runs["compress"].parent, tmp_path_factory.mktemp("trained")
    pair, data = (network, made / "small.onnx"), ("--data", made / "a.npz")
    val = ("--val", made / "b.npz", "--epochs", 1)
    commands: dict[str, tuple[object, ...]] = {
        "correct": ("correct", *pair, *data),
        "finetune": ("finetune", *pair, *data, *val),
        "cascade": ("cascade", network, "--layer", "conv1=channel:macs=0.5", *data, *val),
    }
    found = {}
    for kind, command in commands.items():
        found[kind] = folder / f"{kind}.json"
        found[kind].write_text(printed(*command, "-o", folder / f"{kind}.onnx", "--json"))
    return found


def test_they_are_a_chapter_of_the_page(trained: dict[str, Path]) -> None:
    runs = [report.read_run(path) for path in trained.values()]
    chapters = report.sections(runs, (), report.this_machine(runs))
    assert [chapter.id for chapter in chapters] == ["summary", "training", "environment"]
    data = {kind: json.loads(path.read_text()) for kind, path in trained.items()}
    text = report.render("A title", chapters)
    assert f'<dd class="value">{data["finetune"]["best"]["loss"]:.4g}</dd>' in text
    for score in data["finetune"]["history"]:
        assert f">{score['loss']:.4g}<" in text
        assert f">{100 * score['accuracy']:.2f}<" in text
    (stage,) = data["cascade"]["stages"]
    assert f">{stage['scheme']}<" in text
    assert f">{stage['tuned']['loss']:.4g}<" in text
    for each in data["correct"]["corrections"]:
        assert f">{each['shift']:.3g}<" in text


def test_a_loss_that_is_not_finite_is_said(trained: dict[str, Path], tmp_path: Path) -> None:
    data = json.loads(trained["finetune"].read_text())
    data["history"][0]["loss"] = None
    path = tmp_path / "finetune.json"
    path.write_text(json.dumps(data))
    text = report.render("A title", report.sections([report.read_run(path)]))
    assert "not finite before training" in text
