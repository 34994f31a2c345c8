"""Digits compressed by latencies from another process, as for another machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODELS = Path(__file__).parents[2] / "models"
COMMAND = [sys.executable, "-c", "from onnx_lowrank.cli import main; main()"]


def called(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNX_LOWRANK_CACHE": str(cache)}
    command = [*COMMAND, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def fetched(script: str, name: str) -> Path:
    done = subprocess.run(
        [sys.executable, MODELS / script, name], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


@pytest.mark.network
@pytest.mark.slow
def test_a_plan_follows_the_latencies_of_another_machine(tmp_path: Path) -> None:
    network = fetched("fetch.py", "mnist")
    data = np.load(fetched("datasets.py", "mnist5k") / "test.npz")
    for name, part in (("search", slice(0, 600)), ("verdict", slice(600, 1600))):
        np.savez(tmp_path / f"{name}.npz", images=data["images"][part], labels=data["labels"][part])
    there, here = tmp_path / "there", tmp_path / "here"
    done = called(
        ["bench", str(network), "--save-latency", str(tmp_path / "a.json"), "--threads", "1"], there
    )
    assert done.returncode == 0, done.stderr

    table = json.loads((tmp_path / "a.json").read_text())

    def plan(path: Path) -> dict[str, Any]:
        output = tmp_path / f"{path.stem}.onnx"
        done = called(
            [
                *("compress", str(network), "-o", str(output), "--latency", str(path)),
                *("--calibrate", str(tmp_path / "search.npz")),
                *("--data", str(tmp_path / "verdict.npz")),
                *("--preprocess", "unit:mean=0.1307,std=0.3081", "--max-drop", "1"),
                *("--keep-anyway", "--json"),
            ],
            here,
        )
        assert done.returncode in (0, 1), done.stderr
        assert output.exists()
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["latency_measured_here"] is False
        assert report["check_command"].startswith(f"onnx-lowrank bench {network} {output} ")
        return report

    first = plan(tmp_path / "a.json")
    chosen = {each["scheme"] for each in first["search"]["layers"]}
    assert chosen
    times = {each["ratio"] for each in first["search"]["layers"]}
    # There, what was chosen hardly pays.
    table["latencies"] = {
        key: [row[0] / row[1] * 0.99, 0.99, 0.985, 0.995] if row[1] in times else row
        for key, row in table["latencies"].items()
    }
    (tmp_path / "b.json").write_text(json.dumps(table))
    second = plan(tmp_path / "b.json")
    other = {each["scheme"] for each in second["search"]["layers"]}
    assert chosen != other
    assert not times & {each["ratio"] for each in second["search"]["layers"]}
    # The command that is to be run there runs: here it measures what this machine does.
    words = first["check_command"].split()[1:]
    done = called([*words, "--seconds", "1", "--json"], here)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    print(json.dumps({"predicted": first["search"]["latency"], "measured": measured}, indent=1))
