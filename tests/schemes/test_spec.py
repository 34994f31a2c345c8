"""Scheme specifications as users write them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.schemes import SCHEMES, Rank, SchemeSpec

CONV2 = ConvSpec(
    in_channels=96,
    out_channels=256,
    kernel=(5, 5),
    strides=(2, 2),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
)


@pytest.mark.parametrize(
    "text",
    [
        "mono:C=6",
        "mono:C=12.5%",
        "bicluster-svd:G=2,H=2,K1=50%,K2=64",
        "bicluster-outer:G=48,H=2,K=8",
    ],
)
def test_specifications_read_back_as_written(text: str) -> None:
    assert str(SchemeSpec.parse(text)) == text


def test_ranks_in_any_order_are_put_in_the_schemes_own() -> None:
    assert str(SchemeSpec.parse("bicluster-outer:K=8, H=2 ,G=48")) == "bicluster-outer:G=48,H=2,K=8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bicluster_svd:G=1,H=1,K1=1,K2=1", "did you mean 'bicluster-svd'"),
        ("zzz:C=1", "choose one of mono"),
        ("", "choose one of mono"),
        ("mono", "write mono:C="),
        ("mono:", "write mono:C="),
        ("mono:K=3", "write mono:C="),
        ("mono:C=3,C=4", "write mono:C="),
        ("mono:C=3,D=4", "write mono:C="),
        ("bicluster-outer:G=1,K=2", "write bicluster-outer:G=,H=,K="),
        ("mono:C=0", "'0' is not a rank"),
        ("mono:C=-1", "'-1' is not a rank"),
        ("mono:C=1.5", "'1.5' is not a rank"),
        ("mono:C=0%", "'0%' is not a rank"),
        ("mono:C=101%", "'101%' is not a rank"),
        ("mono:C=nan", "'nan' is not a rank"),
        ("mono:C=", "'' is not a rank"),
    ],
)
def test_what_cannot_be_read_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(SchemeError) as caught:
        SchemeSpec.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_percentages_are_of_the_block_and_clusters_snap_to_divisors() -> None:
    scheme = SchemeSpec.parse("bicluster-svd:G=2,H=2,K1=50%,K2=50%").resolve(CONV2)
    assert scheme.spec == "bicluster-svd:G=2,H=2,K1=24,K2=64"
    # 13 % of 96 is 12.48, of 256 is 33.28.
    scheme = SchemeSpec.parse("bicluster-outer:G=13%,H=13%,K=2").resolve(CONV2)
    assert scheme.spec == "bicluster-outer:G=12,H=32,K=2"


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("mono:C=7", "8"),
        ("bicluster-outer:G=5,H=2,K=2", "4"),
        ("bicluster-svd:G=2,H=100,K1=2,K2=2", "128"),
    ],
)
def test_a_count_that_does_not_divide_is_refused_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(SchemeError, match=f"nearest that does is {nearest}$"):
        SchemeSpec.parse(text).resolve(CONV2)


def test_a_rank_prints_as_written() -> None:
    assert [str(Rank.parse(text)) for text in ("64", "50%", "12.5%")] == ["64", "50%", "12.5%"]


def test_the_seed_schemes_are_there() -> None:
    assert {"mono", "bicluster-svd", "bicluster-outer"} <= {scheme.name for scheme in SCHEMES}


def test_importing_schemes_is_cheap() -> None:
    code = (
        "import sys, onnx_lowrank.schemes; "
        "print([m for m in ('onnx', 'onnxruntime', 'onnx_graphsurgeon', 'sklearn', 'torch') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
