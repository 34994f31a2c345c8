"""Rows of the sections on training: short real runs, and their tables."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import onnx_lowrank

pytest.importorskip("torch", reason="torch is not installed: extra finetune")

import networks
import seed_tables
import tuned_tables
import tuning

pytestmark = pytest.mark.slow

SETTINGS = tuning.Settings(samples=64, epochs=1, statistics=16)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuning.Bench:
    """The network of the tables, untrained, and noise in ten classes."""
    folder = tmp_path_factory.mktemp("zf")
    onnx.save(networks.export(networks.zf().eval(), "zf", side=56), folder / "zf.onnx")
    rng = np.random.default_rng(0)
    data = {}
    for split, count in zip(tuning.SPLITS, (96, 70, 32, 80), strict=True):
        data[split] = folder / f"{split}.npz"
        image = rng.standard_normal((count, 3, 56, 56)).astype(np.float32)
        np.savez(data[split], image=image, labels=rng.integers(10, size=count))
    return tuning.Bench(folder / "zf.onnx", data)


def test_what_is_right_is_counted(bench: tuning.Bench) -> None:
    model = onnx.load(bench.network)
    same = bench.drop(model)
    assert same["points"] == 0
    assert same["low"] <= 0 <= same["high"]
    # A classifier that always says 3 is right where 3 is.
    (bias,) = (t for t in model.graph.initializer if t.name == "fc2.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.eye(10, dtype=np.float32)[3] * 1e6, bias.name))
    with np.load(bench.data["test"]) as arrays:
        share = 100 * float(np.mean(arrays["labels"] == 3))
    assert bench.drop(model)["points"] == pytest.approx(bench.accuracy - share)


def test_layers_one_by_one(
    bench: tuning.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (*seed_tables.MONO[:2], seed_tables.CONNECTED[0])
    data = tuning.tune_layers(bench, rows, SETTINGS)
    assert [row["scheme"] for row in data["rows"]] == [row.scheme for row in rows]
    assert len(capsys.readouterr().err.splitlines()) == 3
    monkeypatch.setattr(seed_tables, "TABLES", {"Some": rows[:2], "Connected": rows[2:]})
    monkeypatch.setattr(seed_tables, "CONNECTED", rows[2:])
    lines = tuned_tables.write_tuned(data)
    for row, each in zip(rows, data["rows"], strict=True):
        (line,) = (line for line in lines if f"`{row.scheme}`" in line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [row.layer, row.ranks]
        assert cells[-2] == tuned_tables.points(each["tuned"])
        assert cells[-3] == tuned_tables.points(each["fitted"])
        assert float(cells[-1]) > 1
    first, second = (each["fitted"]["points"] for each in data["rows"][:2])
    told = f"is the same here in {int(first > second)} of 1 pairs."  # theirs: 5.94 and 1.41
    assert told in lines[2]
    lower = sum(each["tuned"]["points"] < each["fitted"]["points"] for each in data["rows"])
    assert f"gives back some in {lower} of 3 rows" in lines[2]
    assert f"lost on {bench.images} test images" in lines[0]


def test_several_layers(bench: tuning.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ("conv2=tucker2:R1=4,R2=4", "conv3=tucker2:R1=4,R2=4")
    rows = (
        seed_tables.Cascade(plan, "theirs", 1.5),
        seed_tables.Cascade(plan[:1], trained=False),
    )
    data = tuning.run_cascades(bench, rows, SETTINGS)
    first, second = data["rows"]
    assert second["trained"] is None
    assert first["mac_reduction"] > second["mac_reduction"] > 1
    monkeypatch.setattr(seed_tables, "CASCADES", rows)
    found = [line for line in tuned_tables.write_cascades(data) if "tucker2" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in found]
    assert cells[0][:2] == ["theirs", "1.5"]
    assert cells[0][-1] == tuned_tables.points(first["trained"])
    assert re.fullmatch(r"-?\d+\.\d\d \(-?\d+\.\d\d to -?\d+\.\d\d\)", cells[0][-1])
    passing = [row for row in data["rows"] if row["corrected"]["points"] <= 1]
    best = max((f"{row['mac_reduction']:.2f}" for row in passing), default=None)
    said = " ".join(tuned_tables.write_cascades(data)[:3])
    assert ("without any training" in said) == bool(passing)
    assert best is None or f"lost at {best} times fewer without any training" in said
    assert cells[1][:2] == ["", ""]
    assert cells[1][-1] == ""


def test_every_row_is_of_the_network_of_the_tables(bench: tuning.Bench) -> None:

    reductions = []
    for row in seed_tables.CASCADES:
        cost = onnx_lowrank.cost(bench.network, plan=list(row.plan))
        replaced = [f"{each.name}={each.scheme}" for each in cost.layers if each.scheme]
        assert replaced == list(row.plan)
        reductions.append((row.trained, cost.total.mac_reduction))
    # One cascade over all Convs at a quarter of the work, and one plan that is not trained.
    assert max(r for trained, r in reductions if trained) >= 4
    assert max(r for trained, r in reductions if not trained) >= 2.5
