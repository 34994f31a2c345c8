"""The seed's tables: ours are of the same structure, and each figure is in its row."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import seed_tables

import onnx_lowrank

ROWS = [row for rows in seed_tables.TABLES.values() for row in rows]
# Channels of a block in the paper's network and in ours: C / G, F / H.
BLOCKS = {"conv2": ((48, 128), (24, 64)), "conv3": ((128, 128), (64, 48))}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of the tables, untrained: costs do not ask for its weights."""
    pytest.importorskip("torch")
    import networks
    import onnx

    path = tmp_path_factory.mktemp("zf") / "zf.onnx"
    onnx.save(networks.export(networks.zf().eval(), "zf", side=56), path)
    return path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.spec)
def test_our_schemes_apply_and_are_written_as_sweeps_write_them(
    row: seed_tables.Row, network: Path
) -> None:
    costs = {cost.name: cost for cost in onnx_lowrank.cost(network, plan=[row.spec]).layers}
    assert costs[row.layer].scheme == row.scheme
    reduction = costs[row.layer].param_reduction
    assert reduction is not None
    assert reduction > 1


@pytest.mark.parametrize("row", seed_tables.SVD, ids=lambda row: row.spec)
def test_ranks_are_the_same_share_of_the_full_one(row: seed_tables.Row) -> None:
    theirs = [int(rank) for rank in row.ranks.rpartition("=")[2].split(",")]
    ours = [int(rank) for rank in re.findall(r"K\d=(\d+)", row.scheme)]
    for rank, their_full, our, our_full in zip(
        theirs, BLOCKS[row.layer][0], ours, BLOCKS[row.layer][1], strict=True
    ):
        assert abs(our - rank * our_full / their_full) <= 0.5  # a rank is a whole number


def test_every_figure_is_in_its_row() -> None:
    count = itertools.count()
    points: list[dict[str, Any]] = []
    for row in ROWS:
        for metric in seed_tables.METRICS:
            place = {"layer": row.layer, "scheme": row.scheme, "metric": metric}
            figures = {"drop_points": next(count) / 4, "mac_reduction": 2.5, "param_reduction": 7.5}
            points.append({**place, **figures})
    lines = seed_tables.losses({"points": points[::-1]})
    titles = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert titles == list(seed_tables.TABLES)
    for index, row in enumerate(ROWS):
        (line,) = (line for line in lines if f"`{row.scheme}`" in line and row.layer in line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [row.layer, row.ranks]
        assert cells[2:5] == ["" if e is None else f"{e:.2f}" for e in row.errors]
        assert cells[5] == f"{row.reduction:.2f}"
        assert cells[7:10] == [f"{(3 * index + metric) / 4:.2f}" for metric in range(3)]
        assert cells[10] == ("7.50" if row in seed_tables.CONNECTED else "2.50")
    with pytest.raises(KeyError):
        seed_tables.losses({"points": points[1:]})


def test_the_times_of_the_paper_add_up() -> None:
    """Pools and the rest, which the paper's table leaves out, took the small remainder."""
    named = sum(itertools.chain.from_iterable(seed_tables.SECONDS.values()))
    assert 0.95 * seed_tables.TOTAL_SECONDS < named <= seed_tables.TOTAL_SECONDS
