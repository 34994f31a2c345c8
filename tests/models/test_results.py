"""Sections of the results page: short real runs on small networks, and the page of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fetch
import numpy as np
import onnx
import pytest
import result_tables
import results
from onnx import numpy_helper, parser

from onnx_lowrank.errors import OnnxLowRankError

pytestmark = pytest.mark.slow

# Two of each op that the seed's Table 1 names, and a third Gemm.
NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,3,12,12] image) => (float[N,4] scores) {
    y1 = Conv<pads=[1,1,1,1]>(image, w1)
    n1 = LRN<size=3>(y1)
    y2 = Conv<pads=[1,1,1,1]>(n1, w2)
    n2 = LRN<size=3>(y2)
    p2 = GlobalAveragePool(n2)
    f = Flatten(p2)
    g = Gemm(f, w3)
    scores = Gemm(g, w4)
}
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    model = parser.parse_model(NET)
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 8), "w4": (8, 4)}
    for name, shape in shapes.items():
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    path = tmp_path_factory.mktemp("results") / "net.onnx"
    onnx.save(model, path)
    return path


def cells(lines: list[str], first: str) -> list[str]:
    """Return the cells of the row that begins so."""
    (row,) = (line for line in lines if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.network
def test_compression_and_bench_of_a_trained_network() -> None:
    network = fetch.network("mnist")
    options = ("--layer", "conv*=channel:macs=0.5", "--min-sqnr", 1)
    data = results.run_main(network=network, options=options, seconds=0.05)
    lines = results.PARTS["main"].write(data)
    total = data["compress"]["cost"]["total"]
    assert cells(lines, "total")[-1] == f"{total['mac_reduction']:.2f}"
    (found,) = (line for line in lines if line.startswith("Output `scores` over 8 samples: SQNR "))
    assert found.endswith(f" {data['compress']['verification']['outputs'][0]['sqnr_db']:.1f} dB.")
    ratio = data["bench"]["settings"][0]["contenders"][1]["ratio"]
    shown = f"{ratio['ratio']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
    assert shown in cells(lines, f"{network.stem}-lowrank.onnx")


def test_times_stand_beside_those_of_the_paper(network: Path) -> None:
    data = results.run_table1(network=network, batch=2, runs=2)
    lines = results.PARTS["table1"].write(data)
    rows = {row["op"]: row for row in reversed(data["profile"]["model"]["rows"])}  # the first
    assert cells(lines, "Conv 1")[1].startswith(f"{rows['Conv']['mean_ms']:.2f} ± ")
    assert cells(lines, "Conv 1")[-2:] == ["2.83", "22.0"]  # as printed in the paper
    assert cells(lines, "Conv 2")[-2:] == ["4.26", "33.0"]
    assert cells(lines, "LRN 2")[-2:] == ["0.08", "0.6"]
    assert cells(lines, "Gemm 2")[-2:] == ["0.07", "0.5"]
    assert cells(lines, "total")[-2:] == ["12.89", "100.0"]
    text = " ".join(lines)
    assert "Attributed to layers and nodes: 100.00 %" in text
    assert text.startswith("| layer")


@pytest.mark.network
def test_a_network_against_itself() -> None:
    data = results.run_itself(network=fetch.network("mnist"), trials=2, seconds=0.05)
    assert [trial["seed"] for trial in data["trials"]] == [0, 1]
    lines = results.PARTS["itself"].write(data)
    ratios = [trial["settings"][0]["contenders"][1]["ratio"] for trial in data["trials"]]
    inside = sum(ratio["low"] <= 1 <= ratio["high"] for ratio in ratios)
    assert lines[0] == f"{inside} of 2 intervals contain 1."


def test_a_command_that_cannot_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(OnnxLowRankError, match=r"inspect .*missing\.onnx: error: "):
        results.olr("inspect", tmp_path / "missing.onnx")


def test_the_page_names_what_is_missing_and_shows_what_is_there(
    network: Path, tmp_path: Path
) -> None:
    data = results.run_table1(network=network, batch=1, runs=2)
    (tmp_path / "table1.json").write_text(json.dumps(data))
    text = results.page(tmp_path)
    titles = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert titles == [part.title for part in results.PARTS.values()]
    missing = re.findall(r"Not run yet: `python models/results.py run (\w+)`", text)
    assert missing == [name for name in results.PARTS if name != "table1"]
    assert "\n".join(result_tables.write_table1(data)[:3]) in text


def test_the_page_in_the_repository_is_of_the_runs_there() -> None:
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.FOLDER)
