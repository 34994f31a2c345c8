from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError
from onnx_lowrank.planning.plan import (
    Rule,
    applicable,
    decide,
    default_plan,
    read_plan,
)


@dataclass(frozen=True)
class FakeLayer:
    name: str
    spec: ConvSpec | None
    reason: str | None = None


def conv(c: int, f: int, k: int, *, size: int = 16, group: int = 1) -> ConvSpec:
    return ConvSpec(
        in_channels=c,
        out_channels=f,
        kernel=(k, k),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(k // 2,) * 4,
        group=group,
        input_size=(size, size),
        output_size=(size, size),
    )


LAYERS = (
    FakeLayer("conv1", conv(3, 96, 7)),
    FakeLayer("conv2", conv(96, 256, 5)),
    FakeLayer("block/dw", conv(64, 64, 3, group=64)),
    FakeLayer("dynamic", None, "its weight is not constant"),
)


def test_rules_are_read_with_the_scheme_after_the_last_fitting_equals_sign() -> None:
    assert Rule.parse("conv1=mono:C=6").pattern == "conv1"
    assert Rule.parse("a=b=mono:C=6").pattern == "a=b"
    assert Rule.parse("scope/x:0=mono:C=6").pattern == "scope/x:0"
    assert Rule.parse("a\nb=mono:C=6").pattern == "a\nb"
    assert Rule.parse("fc*=keep").scheme is None
    assert str(Rule.parse("*=bicluster-svd:G=2,H=2,K1=50%,K2=50%")) == (
        "*=bicluster-svd:G=2,H=2,K1=50%,K2=50%"
    )


@pytest.mark.parametrize("text", ["conv1", "=mono:C=6", "", "conv1="])
def test_a_malformed_rule_says_how_to_write_one(text: str) -> None:
    with pytest.raises(PlanError, match="NAME=SCHEME"):
        Rule.parse(text)


def test_an_unknown_scheme_is_named_with_those_near_it() -> None:
    with pytest.raises(SchemeError, match="bicluster-svd"):
        Rule.parse("conv1=bicluster-sdv:G=2")


def test_exact_names_go_before_globs_and_the_first_glob_decides() -> None:
    plan = decide(
        LAYERS,
        [
            Rule.parse("*=bicluster-svd:G=1,H=2,K1=1,K2=50%"),
            Rule.parse("conv*=mono:C=4"),
            Rule.parse("conv1=mono:C=6"),
        ],
    )
    assert plan.chosen["conv1"].spec == "mono:C=6"
    assert plan.chosen["conv2"].spec == "bicluster-svd:G=1,H=2,K1=1,K2=64"


def test_under_a_glob_layers_that_do_not_fit_are_kept_with_the_reason() -> None:
    plan = decide(LAYERS, [Rule.parse("*=mono:C=6")])
    reasons = {d.layer: d.reason for d in plan.decisions if d.scheme is None}
    assert set(reasons) == {"conv2", "block/dw", "dynamic"}
    assert "does not divide" in str(reasons["conv2"])
    assert "group" in str(reasons["block/dw"])
    assert reasons["dynamic"] == "its weight is not constant"


def test_under_a_glob_a_scheme_that_gains_nothing_is_not_applied() -> None:
    rule = "bicluster-svd:G=1,H=1,K1=3,K2=96"
    plan = decide(LAYERS, [Rule.parse(f"conv?={rule}")])
    assert "would not reduce" in str(plan.decisions[0].reason)
    assert decide(LAYERS, [Rule.parse(f"conv1={rule}")]).chosen["conv1"].spec == rule


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("conv1=mono:C=5", "nearest"),
        ("conv1=mono:C=97", "out of range"),
        ("block/dw=mono:C=4", "group"),
        ("dynamic=mono:C=4", "not constant"),
    ],
)
def test_for_a_layer_named_exactly_a_misfit_is_an_error(rule: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        decide(LAYERS, [Rule.parse(rule)])


def test_an_unknown_layer_is_an_error_that_suggests_names() -> None:
    with pytest.raises(PlanError, match="did you mean 'conv1'"):
        decide(LAYERS, [Rule.parse("conv11=mono:C=6")])
    with pytest.raises(PlanError, match="inspect"):
        decide(LAYERS, [Rule.parse("zzz*=mono:C=6")])


def test_a_plan_survives_being_written_and_read(tmp_path: Path) -> None:
    plan = decide(LAYERS, [Rule.parse("*=mono:C=6")])
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    again = decide(LAYERS, read_plan(tmp_path / "plan.json"))
    assert again.chosen == plan.chosen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "layers": []}',
        '{"version": 1, "layers": [{"name": 1, "scheme": "mono:C=6"}]}',
        '{"version": 1, "layers": [{"name": "a"}]}',
    ],
)
def test_what_is_not_a_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError):
        read_plan(tmp_path / "plan.json")


def test_the_default_plan_reduces_the_work_of_every_layer_it_touches() -> None:
    plan = default_plan(LAYERS)
    assert plan.chosen["conv1"].name == "mono"
    assert plan.chosen["conv2"].name == "bicluster-svd"
    for layer in LAYERS:
        if scheme := plan.chosen.get(layer.name):
            assert layer.spec is not None
            new, old = scheme.macs(layer.spec), layer.spec.macs
            assert new is not None
            assert old is not None
            assert new < old


def test_inspection_names_the_schemes_or_the_reason() -> None:
    names, reason = applicable(LAYERS[1])
    assert "mono" in names
    assert "bicluster-outer" in names
    assert reason is None
    names, reason = applicable(LAYERS[3])
    assert (names, reason) == ((), "its weight is not constant")
    names, reason = applicable(LAYERS[2])
    assert names == ()
    assert "group" in str(reason)


def test_a_weight_that_no_memory_holds_is_kept_with_the_reason() -> None:
    def weights(name: str) -> NDArray[np.float64]:
        raise MemoryError

    (decision,) = decide(
        LAYERS[:1], [Rule.parse("*=channel:energy=0.5")], weights=weights
    ).decisions
    assert decision.reason == "its weight does not fit into memory"
