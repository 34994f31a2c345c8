"""The section on held-out errors: ratios and their medians, from sweeps as they are stored."""

from __future__ import annotations

from dataclasses import replace

import held_out
import pytest

from onnx_lowrank.pipelines.sweeping import PointResult, SweepReport

POINT = PointResult(
    layer="conv1",
    scheme="tucker2:R1=2,R2=3",
    metric="frobenius",
    calibration_images=None,
    macs=1000,
    macs_new=250,
    params=90,
    params_new=30,
    fit_error=0.2,
    held_out_error=0.2,
    seconds=1.0,
)
LAYERS = {
    ("conv1", "tucker2:R1=2,R2=3"): (0.2, 0.1, 0.15),
    ("conv2", "tucker2:R1=4,R2=5"): (0.4, 0.1, 0.42),
    ("conv3", "tucker2:R1=4,R2=5"): (0.5, 0.4, 0.4),
    ("fc", "svd:R=4"): (0.1, 0.09, 0.1),
}


def reports() -> tuple[SweepReport, SweepReport]:
    whole = SweepReport(model="net", settings={}, held_out_images=17, points=(), skipped=())
    found = []
    for place, images in ((1, 34), (2, 6)):
        points = []
        for (layer, scheme), errors in LAYERS.items():
            plain = replace(POINT, layer=layer, scheme=scheme, held_out_error=errors[0])
            points.append(plain)
            covariance = replace(plain, metric="covariance", calibration_images=images)
            points.append(replace(covariance, held_out_error=errors[place]))
        found.append(replace(whole, points=tuple(points)))
    return found[0], found[1]


def test_ratios_are_of_the_same_layer_and_scheme() -> None:
    table = held_out.rows(*reports())
    assert [row.plain.layer for row in table] == ["conv1", "conv2", "conv3", "fc"]
    assert [row.ratio for row in table] == pytest.approx([0.5, 0.25, 0.8, 0.9])
    assert [row.few_ratio for row in table] == pytest.approx([0.75, 1.05, 0.8, 1.0])


def test_the_section_shows_medians_and_the_worst() -> None:
    lines = list(held_out.section("net", *reports()))
    assert lines[0] == "### net"
    assert "34 and 6 calibration images, 17 others held out" in lines[2]
    assert "| tucker2 | 3 | 0.500 | 0.800 | 0.800 | 1.050 |" in lines
    assert "| svd | 1 | 0.900 | 0.900 | 1.000 | 1.000 |" in lines
    assert "| all | 4 | 0.650 | 0.900 | 0.900 | 1.050 |" in lines
    assert "| conv2 | `tucker2:R1=4,R2=5` | 4.00 | 40.00 | 10.00 | 0.250 | 42.00 | 1.050 |" in lines


def test_another_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        held_out.main(["lenet"])
    assert "no network is called lenet" in capsys.readouterr().err
