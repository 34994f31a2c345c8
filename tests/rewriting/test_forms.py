"""Every form of a layer computes what its factors stand for, or says why not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from builders import conv_model
from conformance.forms import check_form

from onnx_lowrank.errors import PlanError
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.rewriting.forms import (
    FORMS,
    PORTABLE,
    STANDARD,
    allowed_forms,
    default_form,
    find_form,
    forms_for,
    layer_forms,
    plan_forms,
)
from onnx_lowrank.schemes import SCHEMES
from onnx_lowrank.schemes.factors import BlockCPFactors, SpatialFactors


@dataclass(frozen=True)
class Runtime:
    functions: bool
    kernels: bool
    name: str = "here"


@pytest.mark.parametrize("name", FORMS.names)
def test_conformance(name: str) -> None:
    check_form(FORMS[name])


def test_names() -> None:
    assert find_form("portable") is PORTABLE
    with pytest.raises(PlanError, match="there is no form 'portabel'; did you mean 'portable'"):
        find_form("portabel")
    with pytest.raises(
        PlanError, match=r"there is no form 'auto'; choose one of standard, portable$"
    ):
        find_form("auto")  # it is no form, but leaves the choice of one


def test_what_a_search_may_use() -> None:
    fast, slow = Runtime(functions=True, kernels=True), Runtime(functions=True, kernels=False)
    assert allowed_forms("auto", fast) == (STANDARD, PORTABLE)
    assert allowed_forms("auto", slow) == (STANDARD,)
    assert allowed_forms("portable", slow) == (PORTABLE,)
    assert default_form("auto", fast) is PORTABLE
    assert default_form("auto", slow) is STANDARD
    assert default_form("portable", slow) is PORTABLE
    with pytest.raises(PlanError, match="choose one of standard, portable, auto"):
        allowed_forms("nonsense", fast)
    with pytest.raises(PlanError, match="the engine here does not run portable nodes; take --low"):
        allowed_forms("portable", Runtime(functions=False, kernels=False))


def test_the_forms_of_a_plan() -> None:
    slow, without = (Runtime(functions=each, kernels=False) for each in (True, False))
    named = {"first": "portable", "second": None}
    assert plan_forms(named, STANDARD, slow) == {"first": PORTABLE, "second": STANDARD}
    with pytest.raises(PlanError, match=r"does not run portable nodes; .* leave out @portable"):
        plan_forms(named, STANDARD, without)
    assert plan_forms({"first": "standard"}, STANDARD, without) == {"first": STANDARD}


def test_standard_ops_stand_in_where_no_form_serves() -> None:
    (layer,) = find_layers(conv_model(np.ones((4, 4, 3, 3)), None))
    assert layer.spec is not None
    given = (layer.spec, layer.dtype)
    assert forms_for(BlockCPFactors, *given, [PORTABLE]) == (PORTABLE,)
    assert forms_for(BlockCPFactors, *given, FORMS) == (STANDARD, PORTABLE)
    assert forms_for(SpatialFactors, *given, [PORTABLE]) == (STANDARD,)
    assert layer_forms([SCHEMES["cp"]], *given) == ("standard", "portable")
    assert layer_forms([SCHEMES["spatial"]], *given) == ("standard",)
