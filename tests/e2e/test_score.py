"""Digits compressed within a budget that the user's own figure of merit sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

MODELS = Path(__file__).parents[2] / "models"
COMMAND = [sys.executable, "-c", "from onnx_lowrank.cli import main; main()"]
METRIC = """
import numpy as np

def likelihood(outputs, reference, labels):
    (scores,) = outputs.values()
    logits = scores.astype(float)
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]
    return np.mean(right - np.log(np.exp(logits).sum(axis=1)))

def broken(outputs, reference, labels):
    return "very good"
"""
MOST = 0.05  # nats


def fetched(script: str, name: str) -> Path:
    done = subprocess.run(
        [sys.executable, MODELS / script, name], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNX_LOWRANK_CACHE": str(folder / "cache")}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def likelihood(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = (images.reshape(-1, 1, 28, 28) / np.float32(255) - 0.1307) / 0.3081
    name = session.get_inputs()[0].name
    logits = np.concatenate(
        [session.run(None, {name: x[None].astype(np.float32)})[0] for x in pixels]
    ).astype(float)
    right = logits[np.arange(len(labels)), labels]
    return float(np.mean(right - np.log(np.exp(logits).sum(axis=1))))


@pytest.mark.network
@pytest.mark.slow
def test_a_budget_in_units_of_the_users_score(tmp_path: Path) -> None:
    network = fetched("fetch.py", "mnist")
    data = np.load(fetched("datasets.py", "mnist5k") / "test.npz")
    parts = {"search": slice(0, 800), "verdict": slice(800, 2000)}
    for name, part in parts.items():
        np.savez(tmp_path / f"{name}.npz", images=data["images"][part], labels=data["labels"][part])
    (tmp_path / "mine.py").write_text(METRIC)
    how = ("--data", "verdict.npz", "--preprocess", "unit:mean=0.1307,std=0.3081")
    search = ("compress", str(network), "-o", "small.onnx", "--calibrate", "search.npz", *how)
    budget = ("--max-drop", str(MOST), "--threads", "1", "--keep-anyway", "--json")

    done = called(tmp_path, *search, *budget, "--score", "mine:broken")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the score 'mine:broken' returned a str; it should return one number\n"
    )

    done = called(tmp_path, *search, *budget, "--score", "mine:likelihood")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    score = report["verification"]["score"]
    before, after = (
        likelihood(model, data["images"][parts["verdict"]], data["labels"][parts["verdict"]])
        for model in (network, tmp_path / "small.onnx")
    )
    # Batches of other sizes: float32 sums in another order, 1e-6 of logits of about 20.
    assert score["original"] == pytest.approx(before, abs=1e-4)
    assert score["compressed"] == pytest.approx(after, abs=1e-4)
    assert report["passed"] == (done.returncode == 0)
    assert report["verification"]["passed"] == (score["drop"] <= MOST)
    assert report["cost"]["total"]["mac_reduction"] > 2
    for each in report["search"]["explored"]:
        assert each["passed"] == (each["drop"] <= MOST)
    expected = report["expected_drop"]
    assert expected["quantity"] == "score"
    assert expected["seen"] == score["drop"]
    assert expected["within"] == (expected["low"] <= expected["seen"] <= expected["high"])
    print(json.dumps({"expected": expected, "latency": report["search"]["latency"]}))

    most = ("--score", "mine:likelihood", "--max-drop", str(0.9 * score["drop"]), "--min-sqnr", "0")
    done = called(tmp_path, "verify", str(network), "small.onnx", *how, *most)
    assert done.returncode == 1
    assert "FAILED: CPU: the score 'mine:likelihood' fell by" in done.stdout
