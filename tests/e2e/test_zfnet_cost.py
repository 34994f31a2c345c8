"""The published reductions, counted on the network inside the onnx package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import onnx_lowrank
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.schemes import SchemeSpec

# Layer, scheme, reduction in operations as published (Denton et al. 2014, tables 2 to 4).
PUBLISHED = [
    ("n0", "mono:C=4", "2.97"),
    ("n0", "mono:C=8", "2.94"),
    ("n0", "mono:C=16", "2.88"),
    ("n8", "bicluster-svd:G=2,H=4,K1=51,K2=51", "4.0"),
    ("n8", "bicluster-svd:G=2,H=4,K1=64,K2=76", "2.4"),
    ("n8", "bicluster-svd:G=2,H=4,K1=76,K2=76", "2.1"),
    ("n8", "bicluster-outer:G=128,H=4,K=4", "4.1"),
    ("n8", "bicluster-outer:G=128,H=4,K=8", "2.1"),
    ("conv4", "bicluster-outer:G=256,H=8,K=4", "4.1"),
    ("conv4", "bicluster-outer:G=256,H=8,K=8", "2.1"),
]


@pytest.fixture(scope="module")
def layers(light_folder: Path) -> dict[str, ConvSpec]:
    rows = onnx_lowrank.inspect(light_folder / "light_zfnet512.onnx")
    found = {row.layer.name: row.layer.spec for row in rows if row.layer.spec}
    # The file's fourth layer has 512 outputs, the published network's has 1024.
    return {**found, "conv4": replace(found["n10"], out_channels=1024)}


@pytest.mark.parametrize(("layer", "scheme", "published"), PUBLISHED)
def test_reductions_round_to_the_published_figures(
    layers: dict[str, ConvSpec], layer: str, scheme: str, published: str
) -> None:
    conv = layers[layer]
    new = SchemeSpec.parse(scheme).resolve(conv).macs(conv)
    assert new is not None
    assert conv.macs is not None
    digits = len(published.partition(".")[2])
    assert abs(conv.macs / new - float(published)) <= 0.5 * 10**-digits + 1e-9
