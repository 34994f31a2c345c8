"""Sweeps of a small network: what they measure, that they go on, and how they fail."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from onnx import numpy_helper
from onnx.utils import Extractor

import onnx_lowrank
from onnx_lowrank.errors import DataError, OutputError, PlanError, SchemeError
from onnx_lowrank.pipelines.sweeping import METRICS, SweepData, SweepReport, sweep
from onnx_lowrank.pipelines.sweeping.result import COLUMNS
from onnx_lowrank.runtime import open_session

Data = tuple[Path, Path]
SCHEMES = ("tucker2:R1=3,R2=6", "mono:C=4", "svd:R=4")
BOTH = ("frobenius", "covariance")


def run(model: Path, folder: Path, data: Data, **options: object) -> SweepReport:
    settings = {"schemes": SCHEMES, "metrics": BOTH, **options}
    return sweep(model, folder, SweepData(held_out=data[0], calibration=data[1]), **settings)


def timeless(report: SweepReport) -> list[object]:
    return [replace(point, seconds=0.0) for point in report.points]


@pytest.fixture(scope="module")
def report(network: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> SweepReport:
    return run(network, tmp_path_factory.mktemp("sweep"), data, network=True)


def output_of(model: onnx.ModelProto, data: Data) -> np.ndarray:
    with np.load(data[0]) as arrays:
        (value,) = open_session(model).run({"x": arrays["x"]}).values()
    return np.asarray(value, np.float64)


@pytest.mark.parametrize(
    # Behind the BatchNormalization, which is folded into conv1.
    ("layer", "tensor"),
    [("conv1", "n1"), ("conv2", "y2"), ("fc", "scores")],
)
def test_the_held_out_error_is_that_of_the_layers_output(
    report: SweepReport, network: Path, data: Data, layer: str, tensor: str
) -> None:
    model = Extractor(onnx.shape_inference.infer_shapes(onnx.load(network))).extract_model(
        ["x"], [tensor]
    )
    output = output_of(model, data)
    bias = bias_of(network, layer).reshape(1, -1, *(1,) * (output.ndim - 2))
    points = [point for point in report.points if point.layer == layer]
    for point in points:
        changed = onnx_lowrank.compress(
            model,
            plan=[f"{layer}={point.scheme}"],
            calibration=data[1] if point.metric == "covariance" else None,
            verification=False,
        ).model
        error = np.linalg.norm(output - output_of(changed, data)) / np.linalg.norm(output - bias)
        # float32 sums of up to 216 terms: 216 * 2^-24 = 1.3e-5 of the output at the very worst,
        # against errors above a tenth of it.
        assert error > 0.1
        assert point.held_out_error == pytest.approx(error, rel=1e-4)
    assert len(points) in (2, 4)


def bias_of(path: Path, layer: str) -> np.ndarray:
    """The bias of a layer with the BatchNormalization behind it folded."""
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    if layer == "conv1":
        factor = values["scale"] / np.sqrt(values["variance"] + 1e-5)
        return np.asarray((values["b1"] - values["mean"]) * factor + values["shift"])
    return np.asarray(values["b3"] if layer == "fc" else np.zeros(24))


def test_points_come_in_the_order_of_the_grid_with_their_cost(report: SweepReport) -> None:
    found = [(p.layer, p.scheme, p.metric) for p in report.points]
    assert found == [
        (layer, scheme, metric)
        for layer, schemes in [
            ("conv1", ["tucker2:R1=3,R2=6", "mono:C=4"]),
            ("conv2", ["tucker2:R1=3,R2=6", "mono:C=4"]),
            ("fc", ["svd:R=4"]),
        ]
        for scheme in schemes
        for metric in BOTH
    ]
    point = report.points[4]
    assert point.macs == 36 * 24 * 16 * 9
    assert point.macs_new == 36 * (16 * 3 + 3 * 9 * 6 + 6 * 24)
    assert point.params_new == 16 * 3 + 3 * 9 * 6 + 6 * 24
    assert [p.calibration_images for p in report.points[:2]] == [None, 40]
    assert {s.scheme for s in report.skipped if s.layer == "fc"} == {
        "tucker2:R1=3,R2=6",
        "mono:C=4",
    }


def test_data_help_where_they_are_many(report: SweepReport) -> None:
    pairs = zip(report.points[::2], report.points[1::2], strict=True)
    assert all(b.held_out_error <= a.held_out_error for a, b in pairs)


def test_the_network_is_run_with_one_layer_replaced(
    report: SweepReport, network: Path, data: Data
) -> None:
    with np.load(data[0]) as arrays:
        x, labels = arrays["x"], arrays["labels"]
    scores = open_session(onnx.load(network)).run({"x": x})["scores"]
    for point in report.points:
        changed = onnx_lowrank.compress(
            network,
            plan=[f"{point.layer}={point.scheme}"],
            calibration=data[1] if point.metric == "covariance" else None,
            verification=False,
        ).model
        others = open_session(changed).run({"x": x})["scores"]
        assert point.samples == 24
        assert point.top1_agreement == np.mean(scores.argmax(1) == others.argmax(1))
        assert point.accuracy_original == np.mean(scores.argmax(1) == labels)
        assert point.accuracy == np.mean(others.argmax(1) == labels)


def test_json_and_csv_hold_the_same_points(network: Path, data: Data, tmp_path: Path) -> None:
    report = run(network, tmp_path, data, layers=["conv2"])
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert stored == report.to_document()
    assert stored["version"] == 1
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    for row, point in zip(rows, stored["points"], strict=True):
        assert row == {name: "" if v is None else str(v) for name, v in point.items()}
    assert not (tmp_path / "work").exists()


def test_a_second_run_fits_nothing_and_a_larger_one_only_what_is_new(
    network: Path, data: Data, tmp_path: Path
) -> None:
    first = run(network, tmp_path, data, layers=["conv2"], schemes=["mono:C=4"])
    again = run(network, tmp_path, data, layers=["conv2"], schemes=["mono:C=4"])
    assert again.points == first.points
    assert again.reused == 2
    more = run(network, tmp_path, data, schemes=["mono:C=4/8"])
    assert more.reused == 2
    assert set(first.points) < set(more.points)


def test_points_of_other_data_or_settings_are_not_taken(
    network: Path, data: Data, tmp_path: Path
) -> None:
    plain = {"layers": ["conv2"], "schemes": ["mono:C=4"]}
    run(network, tmp_path, data, **plain)
    assert run(network, tmp_path, data, **plain, seed=1).reused == 0
    assert run(network, tmp_path, data, **plain, network=True).reused == 0
    fewer = SweepData(held_out=data[0], calibration=data[1], calibration_limit=7)
    # The Frobenius fit sees no calibration data, so it stands.
    assert sweep(network, tmp_path, fewer, metrics=BOTH, **plain).reused == 1
    fewer = SweepData(held_out=data[0], calibration=data[1], limit=7)
    assert sweep(network, tmp_path, fewer, metrics=BOTH, **plain).reused == 0
    other = onnx.load(network)
    other.graph.initializer[6].raw_data = (
        1.5 * numpy_helper.to_array(other.graph.initializer[6])
    ).tobytes()
    assert other.graph.initializer[6].name == "w2"
    changed = tmp_path / "other.onnx"
    onnx.save(other, changed)
    assert run(changed, tmp_path, data, **plain).reused == 0


def test_processes_find_the_same(
    report: SweepReport, network: Path, data: Data, tmp_path: Path
) -> None:
    other = run(network, tmp_path, data, network=True, jobs=2)
    for a, b in zip(report.points, other.points, strict=True):
        # Another number of BLAS threads may round differently: errors are stable to far less.
        assert b.held_out_error == pytest.approx(a.held_out_error, rel=1e-6)
        same = replace(b, seconds=a.seconds, held_out_error=a.held_out_error, fit_error=a.fit_error)
        assert replace(same, sqnr_db=a.sqnr_db) == a


SCRIPT = """
import sys
from onnx_lowrank.pipelines.sweeping import SweepData, sweep
sweep(sys.argv[1], sys.argv[2], SweepData(held_out=sys.argv[3], calibration=sys.argv[4]),
      schemes=["tucker2:R1=2/3/4/5/6,R2=4/6/8/10/12", "mono:C=4/8"],
      metrics=["frobenius", "covariance"], jobs=int(sys.argv[5]))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_sweep_goes_on(network: Path, data: Data, tmp_path: Path, jobs: int) -> None:
    arguments = [sys.executable, "-c", SCRIPT, network, tmp_path, *data, jobs]
    journal = tmp_path / "points.jsonl"
    process = subprocess.Popen([str(each) for each in arguments])
    try:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
            assert process.poll() is None, "the sweep was over before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "sweep.json").exists()
    before = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    schemes = ["tucker2:R1=2/3/4/5/6,R2=4/6/8/10/12", "mono:C=4/8"]
    report = run(network, tmp_path, data, schemes=schemes)
    assert report.reused == len(before) < len(report.points)
    after = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) == len(report.points)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"jobs": 0}, DataError, "number of jobs is 0; give 1 or more"),
        ({"metrics": ["covarience"]}, PlanError, "did you mean 'covariance'"),
        ({"layers": ["conv9"]}, PlanError, "no layer is called 'conv9'"),
        ({"schemes": []}, PlanError, "no scheme is given"),
        ({"schemes": ["mono"]}, SchemeError, "write mono:C="),
        ({"schemes": ["svd:R=4"], "layers": ["conv*"]}, PlanError, "the grid is empty .conv1: "),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    network: Path,
    data: Data,
    tmp_path: Path,
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    folder = tmp_path / "out"
    with pytest.raises(error, match=message):
        run(network, folder, data, **options)
    assert not folder.exists() or not list(folder.iterdir())


def test_held_out_samples_must_not_have_been_seen(
    network: Path, data: Data, tmp_path: Path
) -> None:
    with np.load(data[0]) as held_out, np.load(data[1]) as calibration:
        mixed = np.concatenate([calibration["x"], held_out["x"][[3, 5]]])
    np.savez(tmp_path / "mixed.npz", x=mixed)
    with pytest.raises(DataError, match="2 of the 24 held-out samples are among the calibration"):
        run(network, tmp_path / "out", (data[0], tmp_path / "mixed.npz"))


def test_metrics_of_gradients_fit_what_compress_fits(
    network: Path, data: Data, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    plain = {"layers": ["conv2"], "schemes": ["tucker2:R1=3,R2=6"]}
    report = run(network, tmp_path, data, **plain, metrics=METRICS)
    assert [point.metric for point in report.points] == list(METRICS)
    assert [point.calibration_images for point in report.points] == [None, 40, 40, 40]
    for point in report.points[2:]:
        fit = onnx_lowrank.compress(
            network,
            plan=["conv2=tucker2:R1=3,R2=6"],
            calibration=data[1],
            metric=point.metric,
            verification=False,
        ).report.fits["conv2"]
        # There conv1's BatchNormalization is not folded: inputs differ by float32's 6e-8.
        assert point.fit_error == pytest.approx(fit.error, rel=1e-6)
    assert len({point.held_out_error for point in report.points}) == 4
    # Right classes for the gradients: what takes none stands.
    with np.load(data[1]) as arrays:
        np.savez(tmp_path / "labelled.npz", **arrays, labels=np.arange(40) % 10)
    again = run(network, tmp_path, (data[0], tmp_path / "labelled.npz"), **plain, metrics=METRICS)
    assert again.reused == 2
    assert again.points[:2] == report.points[:2]


def test_a_metric_of_data_needs_data(network: Path, data: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="covariance needs calibration samples; give --calibrate"):
        sweep(network, tmp_path, SweepData(held_out=data[0]), schemes=SCHEMES, metrics=BOTH)


def test_a_file_in_the_way_is_one_line(network: Path, data: Data, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        run(network, tmp_path / "file", data)


def test_layers_that_the_data_do_not_suit_are_skipped(
    network: Path, data: Data, tmp_path: Path
) -> None:
    model = onnx.load(network)
    next(node for node in model.graph.node if node.output[0] == "a1").op_type = "Log"
    onnx.save(model, tmp_path / "nan.onnx")
    found = run(tmp_path / "nan.onnx", tmp_path / "sweep", data)
    assert {point.layer for point in found.points} == {"conv1"}
    reasons = {each.layer: each.reason for each in found.skipped if each.scheme is None}
    assert reasons.keys() == {"conv2", "fc"}
    assert all(reason.startswith("NaN or Inf in its input") for reason in reasons.values())
    with pytest.raises(DataError, match="layer 'conv2': NaN or Inf in its input 'a1'"):
        run(tmp_path / "nan.onnx", tmp_path / "other", data, layers=["conv2"])
