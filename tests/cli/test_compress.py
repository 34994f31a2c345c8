"""`compress`: no option is taken and then not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SEARCH = ("--max-drop", 1, "--data", "data.npz")
PLAN = ("--layer", "conv*=channel:macs=0.5")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*SEARCH, "--min-top1", 0.9), "--min-top1 has no meaning in a search within a budget"),
        (
            (*SEARCH, "--asymmetric", "--metric", "combined"),
            "--asymmetric and --metric have no meaning in a search",
        ),
        ((*PLAN, "--latency", "there.json"), "--latency is for a search within a budget"),
        (
            (*PLAN, "--latency", "there.json", "--dask", "host:1"),
            "--latency and --dask are for a search within a budget",
        ),
        ((*PLAN, "--lowering", "best"), "'--lowering': 'best' is not one of 'standard'"),
    ],
)
def test_options_that_nothing_would_read_are_refused(
    cli: Callable[..., Any], tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    outcome = cli("compress", tmp_path / "net.onnx", "-o", tmp_path / "new.onnx", *options)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("objective", ["latency", "macs"])
def test_a_search_asks_for_a_faster_model_whatever_it_minimises(
    cli: Callable[..., Any],
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    image = rng.standard_normal((24, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=image)
    result = cli(
        *("compress", classifier, "-o", tmp_path / "new.onnx", "--data", tmp_path / "data.npz"),
        *("--macs", "0.8", "--objective", objective, "--layer", "conv*=keep"),
    )
    assert result.code == 1, result.err
    assert "faster" in result.out
    said = "a search for few macs asks for a faster model too"
    assert (said in " ".join(result.out.split())) == (objective == "macs")
    assert not (tmp_path / "new.onnx").exists()
