"""Ranks by a share of the operations or of a spectrum."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from builders import fit_scheme
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.planning.plan import Rule, decide, read_plan
from onnx_lowrank.schemes import SCHEMES, Rank, Scheme, SchemeSpec

Array = NDArray[np.float64]
CONV = ConvSpec(
    in_channels=48,
    out_channels=64,
    kernel=(3, 3),
    strides=(2, 1),
    dilations=(1, 1),
    pads=(1, 1, 1, 1),
    input_size=(20, 20),
    output_size=(10, 20),
)
FC = replace(CONV, kernel=(), strides=(), dilations=(), pads=(), input_size=(), output_size=())
GROUPED = replace(CONV, group=4)
SPECS = (
    "tucker2:macs={}",
    "cp:macs={}",
    "spatial:macs={}",
    "channel:macs={}",
    "bicluster-svd:G=2,H=2,macs={}",
    "bicluster-outer:G=4,H=2,macs={}",
    "tucker2:R1=10,macs={}",
)


def decayed(conv: ConvSpec) -> Array:
    weight = np.random.default_rng(0).standard_normal(conv.weight_shape)
    for axis, length in enumerate(weight.shape):
        decay = np.geomspace(1.0, 0.02, length)
        weight *= decay.reshape(-1, *(1,) * (weight.ndim - axis - 1))
    return weight


def macs(scheme: Scheme, conv: ConvSpec) -> float:
    new, old = scheme.macs(conv), conv.macs
    if new is None or old is None:
        return scheme.params(conv) / conv.params
    return new / old


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("text", SPECS)
def test_the_operations_are_nearest_to_the_share_from_below(text: str, share: float) -> None:
    for conv in (CONV, replace(CONV, input_size=None, output_size=None)):
        spec = SchemeSpec.parse(text.format(share))
        scheme = spec.resolve(conv)
        assert macs(scheme, conv) <= share
        # Raised together by one step of the largest, the free ranks would be beyond the share, or
        # are all they can be.
        limits = asdict(
            spec.scheme.resolve(
                {n: spec.ranks.get(n, Rank(100, percent=True)) for n in spec.scheme.rank_names()},
                conv,
            )
        )
        free = {n: limits[n] for n in limits if n not in spec.ranks}
        largest = max(free, key=lambda n: free[n])
        now = asdict(scheme)
        if now[largest] == free[largest]:
            continue
        step = (now[largest] + 1) / free[largest]
        more = {**now, **{n: max(round(step * limit), 1) for n, limit in free.items()}}
        assert macs(spec.scheme(**more), conv) > share


def test_ranks_are_in_proportion_to_their_limits() -> None:
    scheme = SchemeSpec.parse("tucker2:macs=0.25").resolve(CONV)
    r1, r2 = asdict(scheme).values()
    # Each is rounded to an integer.
    assert abs(r1 / 48 - r2 / 64) <= 0.5 / 48 + 0.5 / 64


def test_clusters_of_colours_divide() -> None:
    conv = replace(CONV, in_channels=3)
    scheme = SchemeSpec.parse("mono:macs=0.6").resolve(conv)
    assert macs(scheme, conv) <= 0.6
    assert 64 % asdict(scheme)["C"] == 0


@pytest.mark.parametrize("conv", [CONV, FC, GROUPED], ids=["conv", "fc", "grouped"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_energy_is_what_the_leading_singular_values_keep(conv: ConvSpec, share: float) -> None:
    weight = decayed(conv)
    name = "svd" if conv is FC else "channel"
    scheme = SchemeSpec.parse(f"{name}:energy={share}").resolve(conv, lambda: weight)
    (rank,) = asdict(scheme).values()
    parts = weight.reshape(conv.group, len(weight) // conv.group, -1)
    values = np.sum([np.linalg.svd(p, compute_uv=False) ** 2 for p in parts], axis=0)
    kept = np.cumsum(values) / values.sum()
    assert kept[rank - 1] >= share * (1 - 1e-12)
    assert rank == 1 or kept[rank - 2] < share
    # What the truncation keeps of the weight is that share.
    fit = fit_scheme(
        scheme, weight, metric=Frobenius(), rng=np.random.default_rng(0), group=conv.group
    )
    assert 1 - fit.error**2 == pytest.approx(kept[rank - 1], rel=1e-9)


def test_energy_is_of_each_mode() -> None:
    weight = decayed(CONV)
    scheme = SchemeSpec.parse("tucker2:energy=0.9").resolve(CONV, lambda: weight)
    sides = {"R1": weight.swapaxes(0, 1), "R2": weight}
    for rank, side in sides.items():
        values = np.linalg.svd(side.reshape(len(side), -1), compute_uv=False) ** 2
        kept = np.cumsum(values) / values.sum()
        found = asdict(scheme)[rank]
        assert kept[found - 1] >= 0.9 > kept[found - 2]
    mixed = SchemeSpec.parse("tucker2:R1=7,energy=0.9").resolve(CONV, lambda: weight)
    assert mixed.spec == f"tucker2:R1=7,R2={asdict(scheme)['R2']}"


def test_energy_of_separable_kernels_is_of_the_truncation() -> None:
    weight = decayed(CONV)
    scheme = SchemeSpec.parse("spatial:energy=0.8").resolve(CONV, lambda: weight)
    fits = [
        fit_scheme(s, weight, metric=Frobenius(), rng=np.random.default_rng(0)).start_error
        for s in (scheme, type(scheme)(asdict(scheme)["R"] - 1))  # type: ignore[call-arg]
    ]
    assert 1 - fits[0] ** 2 >= 0.8 > 1 - fits[1] ** 2


def test_all_the_energy_of_a_weight_of_low_rank_is_its_rank() -> None:
    rng = np.random.default_rng(1)
    weight = (rng.standard_normal((64, 5)) @ rng.standard_normal((5, 48 * 9))).reshape(64, 48, 3, 3)
    scheme = SchemeSpec.parse("channel:energy=0.999999").resolve(CONV, lambda: weight)
    assert scheme.spec == "channel:R=5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tucker2:macs=0", "not a share; write macs=0.25"),
        ("tucker2:macs=1.5", "not a share; write macs=0.25"),
        ("tucker2:macs=25%", "not a share; write macs=0.25"),
        ("tucker2:energy=", "not a share; write energy=0.95"),
        ("tucker2:energy=nan", "not a share; write energy=0.95"),
        ("tucker2:macs=0.2,energy=0.9", "write tucker2:R1=,R2= or tucker2:macs="),
        ("tucker2:R1=3,R2=4,macs=0.5", "write tucker2:R1=,R2= or tucker2:macs="),
        ("tucker2:R3=3,macs=0.5", "write tucker2:R1=,R2= or tucker2:macs="),
        ("bicluster-svd:macs=0.5", "or bicluster-svd:G=,H=,macs="),
        ("bicluster-svd:G=2,macs=0.5", "or bicluster-svd:G=,H=,macs="),
    ],
)
def test_what_cannot_be_read_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(SchemeError) as caught:
        SchemeSpec.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tucker2:energy=0.9", "need the layer's weight"),
        ("tucker2:macs=0.0001", "the smallest ranks, tucker2:R1=1,R2=1, take"),
        ("svd:macs=0.5", "use channel"),
        ("tucker2:R1=99,macs=0.5", "R1=99 is out of range"),
    ],
)
def test_what_cannot_be_resolved_says_why(text: str, message: str) -> None:
    with pytest.raises(SchemeError) as caught:
        SchemeSpec.parse(text).resolve(CONV)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cp", "mono", "bicluster-svd", "bicluster-outer"])
def test_schemes_without_a_spectrum_say_so(name: str) -> None:
    clusters = "G=2,H=2," if name.startswith("bicluster") else ""
    spec = SchemeSpec.parse(f"{name}:{clusters}energy=0.9")
    with pytest.raises(SchemeError, match="do not cut off a spectrum"):
        spec.resolve(CONV, lambda: decayed(CONV))


@pytest.mark.parametrize("text", ["tucker2:macs=0.25", "bicluster-svd:G=2,H=50%,energy=0.9"])
def test_a_target_prints_as_written(text: str) -> None:
    assert str(SchemeSpec.parse(text)) == text


def test_every_scheme_takes_a_share_of_the_operations() -> None:
    for cls in SCHEMES:
        conv = FC if cls.name == "svd" else CONV
        clusters = "".join(f"{rank}=2," for rank in cls.clusters)
        scheme = SchemeSpec.parse(f"{cls.name}:{clusters}macs=0.5").resolve(conv)
        assert macs(scheme, conv) <= 0.5
        assert SchemeSpec.parse(scheme.spec).resolve(conv) == scheme


@dataclass(frozen=True)
class Planned:
    """A layer as planning sees it."""

    name: str
    spec: ConvSpec
    reason: str | None = None


def test_a_plan_has_the_counts(tmp_path: Path) -> None:
    weight = decayed(CONV)
    asked: list[str] = []

    def weights(name: str) -> Array:
        asked.append(name)
        return weight

    layers = [Planned("conv1", CONV), Planned("conv2", CONV), Planned("conv3", CONV)]
    texts = ("conv1=tucker2:energy=0.5", "conv2=tucker2:macs=0.25", "*=channel:R=4")
    plan = decide(layers, [Rule.parse(text) for text in texts], weights=weights)
    assert asked == ["conv1"]
    expected = SchemeSpec.parse("tucker2:energy=0.5").resolve(CONV, lambda: weight)
    assert plan.chosen["conv1"] == expected
    saved = json.dumps(plan.to_dict())
    assert "energy" not in saved
    assert "macs" not in saved
    (tmp_path / "plan.json").write_text(saved)
    # Read back, it is the same plan, without any weight.
    assert decide(layers, read_plan(tmp_path / "plan.json")).chosen == plan.chosen
    with pytest.raises(PlanError, match=r"conv1.*need the layer's weight"):
        decide(layers, [Rule.parse(text) for text in texts])
