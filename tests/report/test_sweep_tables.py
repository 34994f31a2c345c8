"""Tables of a sweep: the published ones under their numbers, the right figure in each cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onnx_lowrank.pipelines.sweeping import PointResult, SweepReport
from onnx_lowrank.pipelines.sweeping.grid import Skipped
from onnx_lowrank.report.sweep_tables import (
    legend,
    network_loss,
    print_sweep,
    scheme_tables,
    write_tables,
)

POINT = PointResult(
    layer="conv1",
    scheme="mono:C=4",
    metric="frobenius",
    calibration_images=None,
    macs=1000,
    macs_new=250,
    params=90,
    params_new=30,
    fit_error=0.2,
    held_out_error=0.1234,
    seconds=1.0,
)


def with_metrics(point: PointResult, better: float) -> list[PointResult]:
    other = replace(point, metric="covariance", calibration_images=9, held_out_error=better)
    return [point, other]


def report(points: list[PointResult], **changes: object) -> SweepReport:
    whole = SweepReport(
        model="net.onnx", settings={}, held_out_images=17, points=tuple(points), skipped=()
    )
    return replace(whole, **changes)


POINTS = [
    *with_metrics(replace(POINT, scheme="svd:R=5", layer="fc", macs=None, macs_new=None), 0.01),
    *with_metrics(replace(POINT, scheme="bicluster-outer:G=2,H=2,K=7", layer="conv2"), 0.02),
    *with_metrics(POINT, 0.0567),
    *with_metrics(replace(POINT, scheme="mono:C=8", macs_new=500), 0.04),
    replace(POINT, scheme="bicluster-svd:G=1,H=2,K1=3,K2=4"),
]


def test_published_tables_come_first_under_their_numbers() -> None:
    tables = scheme_tables(report(POINTS))
    assert [table.title for table in tables] == [
        "Table 2: monochromatic",
        "Table 3: biclustering and SVD",
        "Table 4: biclustering and outer products",
        "svd",
    ]


def test_a_row_holds_a_layer_with_ranks_and_a_column_a_metric() -> None:
    mono, svd, *_, matrix = scheme_tables(report(POINTS))
    assert mono.header == ("layer", "C", "error\nfrobenius", "error\ncovariance", "MACs", "params")
    assert mono.rows == (
        ("conv1", "4", "12.34", "5.67", "4.00", "3.00"),
        ("conv1", "8", "12.34", "4.00", "2.00", "3.00"),
    )
    # Fitted in one metric only; and a layer of unknown size.
    assert svd.rows == (("conv1", "1", "2", "3", "4", "12.34", "4.00", "3.00"),)
    assert matrix.rows == (("fc", "5", "12.34", "1.00", "", "3.00"),)


def test_the_loss_is_accuracy_where_there_are_labels_and_agreement_otherwise() -> None:
    plain = replace(POINT, samples=17)
    agreed = replace(plain, top1_agreement=0.75)
    labelled = replace(agreed, accuracy_original=0.9, accuracy=0.8, drop_points=10.0)
    assert [network_loss(p) for p in (POINT, plain, agreed, labelled)] == [None, None, 25.0, 10.0]
    (table,) = scheme_tables(report([labelled]))
    assert table.header == ("layer", "C", "error\nfrobenius", "loss\nfrobenius", "MACs", "params")
    assert table.rows == (("conv1", "4", "12.34", "10.00", "4.00", "3.00"),)
    assert "points of accuracy" in legend(report([labelled]))
    assert "top-1 class changes" in legend(report([agreed]))
    assert "loss" not in legend(report([plain]))


def test_markdown_has_one_line_a_row(tmp_path: Path) -> None:
    assert write_tables(report(POINTS), tmp_path) == ("tables.md",)
    text = (tmp_path / "tables.md").read_text()
    assert (
        "Table 2: monochromatic\n\n"
        "| layer | C | error frobenius | error covariance | MACs | params |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| conv1 | 4 | 12.34 | 5.67 | 4.00 | 3.00 |\n"
    ) in text
    assert text.endswith(legend(report(POINTS)) + "\n")


@pytest.mark.parametrize("width", [80, 200])
def test_all_is_printed_within_the_terminal(width: int) -> None:
    labelled = [
        replace(p, layer="features/conv3_2", samples=17, top1_agreement=0.5, metric=metric)
        for p in POINTS[2::2]
        for metric in ("frobenius", "covariance", "mahalanobis")
    ]
    skipped = [Skipped(f"conv{i}", "svd:R=4", "its kernel has an extent") for i in range(5)]
    whole = report(
        labelled,
        skipped=(*skipped, Skipped("odd", None, "its weight is not constant")),
        notes=("calibration: 1 unreadable and skipped: bad.jpg",),
        reused=3,
    )
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_sweep(whole, console)
    console.file.close()
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for expected in (
        "12 points on 17 held-out samples, 3 of them from an earlier run",
        "left out conv0 svd:R=4, conv1 svd:R=4, conv2 svd:R=4 and 2 more: its kernel",
        "left out odd: its weight is not constant",
        "calibration: 1 unreadable and skipped: bad.jpg",
    ):
        assert expected in words
