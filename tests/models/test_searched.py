"""Searches on trained networks and plans of one scheme: short real runs, and their tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import searched

pytestmark = [pytest.mark.slow, pytest.mark.network]


def row(lines: list[str], first: str) -> list[str]:
    """Return the cells of the row that begins so."""
    (found,) = (line for line in lines if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_search_in_both_lowerings() -> None:
    data = searched.run_networks(names=("mnist",))
    assert list(data) == ["mnist, standard", "mnist, portable"]
    lines = searched.write_networks(data)
    for name, found in data.items():
        report = found["report"]
        cells = row(lines, name)
        assert report["verification"]["samples"] == 3500
        assert cells[1] == "1 point of accuracy"
        assert cells[2].startswith(f"{report['search']['latency']['ratio']:.3f} (")
        assert cells[5] == f"{report['verification']['accuracy']['drop_points']:.2f} points"
        assert (cells[7] == "within it") == report["passed"]


def test_a_budget_in_db_and_two_machines() -> None:
    folder = Path(searched.__file__).parent
    data = json.loads((folder / "results" / "networks.json").read_text())
    name = "squeezenet, random weights, standard"
    assert data["mnist, standard"]["report"]["machine"]["cores"] == 1
    assert data[name]["report"]["machine"]["cores"] == 2
    lines = searched.write_networks(data)
    (output,) = data[name]["report"]["verification"]["outputs"]
    assert row(lines, name)[5] == f"{output['sqnr_db']:.1f} dB"
    for first, cores in (("mnist, standard; ", "1 core,"), ("craft, standard; ", "2 cores,")):
        assert any(line.startswith(first) and cores in line for line in lines)


def test_plans_of_one_scheme() -> None:
    shares = (0.5, 0.3)
    data = searched.run_uniform(
        network=searched.CASES["mnist"].network(),
        schemes=("channel",),
        shares=shares,
        kept=("conv1",),
        layers="conv*",
        input_shapes={},
        data=searched.mnist,
        preprocess="unit:mean=0.1307,std=0.3081",
        seconds=0.05,
    )
    lines = searched.write_uniform(data)
    contenders = data["bench"]["settings"][0]["contenders"]
    assert len(contenders) == 3
    for share, timed in zip(shares, contenders[1:], strict=True):
        report = data["plans"][f"channel:macs={share}"]
        cells = row(lines, f"`channel:macs={share}`")
        assert cells[1] == f"{report['cost']['total']['mac_reduction']:.2f}"
        assert cells[2].startswith(f"{timed['ratio']['ratio']:.3f} (")
        assert cells[3] == f"{100 * report['verification']['agreement']['top1']:.2f} %"
    assert len(row(lines, "channel")) == 1 + len(searched.SPEEDUPS)


def test_agreement_between_what_was_measured() -> None:
    times, agreements = (0.2, 0.4), (0.9, 1.0)
    assert searched._between(0.3, times, agreements) == "95.00 %"
    assert searched._between(0.5, times, agreements) == ""
    assert np.isclose(1 / searched.SPEEDUPS[0], 0.38, atol=0.01)
