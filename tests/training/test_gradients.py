"""Fits in the metrics of gradients, through the API and the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import run, text_model

pytest.importorskip("torch", reason="torch is not installed: extra finetune")

from onnx_lowrank import compress
from onnx_lowrank.cli import main
from onnx_lowrank.data import open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.graph.layers import find_layers, layer_weight
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training.sensitivity import squared_gradients

PLAN = ["conv2=tucker2:R1=8,R2=8", "fc1=svd:R=8"]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((24, 3, 32, 32)).astype(np.float32)


def gradients(model: onnx.ModelProto, images: np.ndarray) -> dict[str, Mahalanobis]:
    dataset = open_dataset([{"image": images}], model_inputs(model))
    found = squared_gradients(model, dataset, ["fc1"])
    return {name: Mahalanobis.from_gradients(value) for name, value in found.items()}


def test_each_fit_is_the_best_in_its_own_metric(residual_net, images: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    model = residual_net("N")
    alpha = gradients(model, images)["fc1"]
    weight = layer_weight(GraphEditor(model), find_layers(model)[2])
    feeds = [{"image": images}]

    def error(**options: object) -> tuple[float, float]:
        result = compress(
            model, plan=["fc1=svd:R=8"], verification=False, calibration=feeds, **options
        )  # type: ignore[arg-type]
        fit = result.report.fits["fc1"]
        assert fit.metric == options["metric"]
        difference = fit.factors.reconstruct() - weight
        (scores,) = run(result.model, {"image": images})
        (original,) = run(model, {"image": images})
        return alpha.squared_norm(difference), float(np.square(scores - original).sum())

    found = {name: error(metric=name) for name in ("covariance", "mahalanobis", "combined")}
    assert found["mahalanobis"][0] < min(found["covariance"][0], found["combined"][0])
    # The combined metric measures the output too, if not the same form: it is near the best there.
    assert found["combined"][1] < found["mahalanobis"][1]
    assert found["combined"] != found["covariance"]


def test_bad_choices_are_said(residual_net, images: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    model, feeds = residual_net("N"), [{"image": images}]
    cases = [
        ({"metric": "frobenius", "calibration": feeds}, "no metric of data is called 'frobenius'"),
        ({"metric": "combined"}, "the metric 'combined' needs data"),
        (
            {"metric": "mahalanobis", "calibration": feeds, "asymmetric": True},
            "cannot be asymmetric",
        ),
    ]
    for options, message in cases:
        with pytest.raises(DataError, match=message):
            compress(model, plan=PLAN, verification=False, **options)  # type: ignore[arg-type]


def test_on_the_command_line(
    residual_net,  # type: ignore[no-untyped-def]
    images: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(residual_net("N"), tmp_path / "net.onnx")
    np.savez(tmp_path / "images.npz", image=images)
    layers = [part for rule in PLAN for part in ("--layer", rule)]
    source = str(tmp_path / "images.npz")
    command = ["compress", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "out.onnx"), *layers]
    options = ["--calibrate", source, "--metric", "combined", "--min-sqnr", "-20", "--json"]
    monkeypatch.setattr(sys, "argv", ["onnx-lowrank", *command, *options, "--data", source])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "combined" in json.dumps(json.loads(capsys.readouterr().out))


def test_a_network_with_a_split(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 4, 3, 3), "w3": (8, 4)}
    model = text_model(
        """net (float[N,3,32,32] image) => (float[N,4] y) {
            a = Conv<pads=[1,1,1,1]>(image, w1)
            p, q = Split<axis=1>(a)
            s = Sigmoid(p)
            m = Mul(s, q)
            [conv2] b = Conv<pads=[1,1,1,1]>(m, w2)
            g = GlobalAveragePool(b)
            f = Flatten(g)
            y = Gemm(f, w3)
        }""",
        {k: rng.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()},
    )
    save_model(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "images.npz", image=images)
    source, output = str(tmp_path / "images.npz"), tmp_path / "out.onnx"
    command = ["compress", str(tmp_path / "net.onnx"), "-o", str(output), "--calibrate", source]
    options = ["--layer", "conv2=tucker2:R1=2,R2=2", "--metric", "mahalanobis"]
    options += ["--min-sqnr", "-20", "--quiet"]
    monkeypatch.setattr(sys, "argv", ["onnx-lowrank", *command, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert run(onnx.load(output), {"image": images})[0].shape == (24, 4)
