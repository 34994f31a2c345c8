"""What a sweep covers: specifications with alternatives, layers, and the reasons for gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError
from onnx_lowrank.pipelines.sweeping.grid import expand_rules, make_grid, select_layers


@dataclass(frozen=True)
class Named:
    name: str
    spec: ConvSpec | None
    reason: str | None = None


def conv(inputs: int, outputs: int, kernel: tuple[int, ...] = (3, 3)) -> ConvSpec:
    return ConvSpec(
        in_channels=inputs,
        out_channels=outputs,
        kernel=kernel,
        strides=(1,) * len(kernel),
        dilations=(1,) * len(kernel),
        pads=((1, 1),) * len(kernel),
        input_size=(8,) * len(kernel),
        output_size=(8,) * len(kernel),
    )


LAYERS = (
    Named("conv1", conv(3, 16)),
    Named("conv2", conv(16, 32)),
    Named("odd", None, "its weight is not a constant"),
)


def weight(name: str) -> np.ndarray:
    """conv1 of rank 2 between its inputs and outputs, conv2 of full rank."""
    rng = np.random.default_rng(0)
    if name == "conv1":
        return np.einsum("fr,rcxy->fcxy", np.ones((16, 2)), rng.standard_normal((2, 3, 3, 3)))
    return rng.standard_normal((32, 16, 3, 3))


def test_ranks_by_energy_look_at_the_weight() -> None:
    points, _ = make_grid(
        LAYERS[:2],
        expand_rules(["channel:energy=0.999", "channel:macs=0.5"]),
        ("frobenius",),
        weight,
    )
    ranks = [point.scheme.spec for point in points]
    assert ranks[0] == "channel:R=1"  # both columns of the first factor are alike
    assert all(spec.startswith("channel:R=") for spec in ranks)
    assert len(ranks) == 3  # all of conv2's energy takes too many channels


def test_alternatives_multiply() -> None:
    specs = expand_rules(["bicluster-svd:G=2,H=1/2,K1=4/6/8,K2=50%", "mono:C=4", "mono:C=4/8"])
    assert [str(spec) for spec in specs] == [
        *(f"*=bicluster-svd:G=2,H={h},K1={k},K2=50%" for h in (1, 2) for k in (4, 6, 8)),
        "*=mono:C=4",
        "*=mono:C=8",
    ]


def test_a_scheme_can_be_of_some_layers_only() -> None:
    rules = expand_rules(["conv2=mono:C=4/8", "net/c*=tucker2:R1=2,R2=8%", "a=b=cp:R=5"])
    assert [(rule.pattern, str(rule.scheme)) for rule in rules] == [
        ("conv2", "mono:C=4"),
        ("conv2", "mono:C=8"),
        ("net/c*", "tucker2:R1=2,R2=8%"),
        ("a=b", "cp:R=5"),
    ]
    points, skipped = make_grid(LAYERS[:2], expand_rules(["*2=mono:C=4"]), ("frobenius",), weight)
    assert [(p.layer, p.scheme.spec) for p in points] == [("conv2", "mono:C=4")]
    assert skipped == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mono:C=4//8", "'' is not a rank"),
        ("monk:C=4", "did you mean 'mono'"),
        ("tucker2:R1=4/8", "write tucker2:R1=,R2="),
    ],
)
def test_malformed_specifications_say_what_to_write(text: str, message: str) -> None:
    with pytest.raises(SchemeError, match=message):
        expand_rules([text])


def test_layers_come_in_graph_order_once() -> None:
    assert [layer.name for layer in select_layers(LAYERS, ["conv2", "conv*"])] == ["conv1", "conv2"]
    with pytest.raises(PlanError, match="no layer is called 'fc\\*'"):
        select_layers(LAYERS, ["conv1", "fc*"])


def test_every_gap_of_the_grid_has_its_reason() -> None:
    specs = expand_rules(["mono:C=4/50%", "mono:C=16", "svd:R=4", "tucker2:R1=3,R2=16"])
    points, skipped = make_grid(LAYERS, specs, ("frobenius", "covariance"), weight)
    found = [(p.layer, p.scheme.spec, p.metric) for p in points]
    # mono:C=50% is C=16 for the 32 outputs of conv2: one scheme, named twice.
    assert found == [
        (layer, spec, metric)
        for layer, spec in [
            ("conv1", "mono:C=4"),
            ("conv1", "mono:C=8"),
            ("conv1", "mono:C=16"),
            ("conv2", "mono:C=4"),
            ("conv2", "mono:C=16"),
            ("conv2", "tucker2:R1=3,R2=16"),
        ]
        for metric in ("frobenius", "covariance")
    ]
    reasons = {(s.layer, s.scheme): s.reason for s in skipped}
    assert set(reasons) == {
        ("conv1", "tucker2:R1=3,R2=16"),
        ("conv1", "svd:R=4"),
        ("conv2", "svd:R=4"),
        ("odd", None),
    }
    assert reasons["odd", None] == "its weight is not a constant"
    assert "would not reduce" in reasons["conv1", "tucker2:R1=3,R2=16"]
