"""A scheme that lacks something is refused where it is added, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any

import numpy as np
import pytest

from onnx_lowrank.schemes import SCHEMES, Dense, Factors, Scheme
from onnx_lowrank.schemes.base import lacks
from onnx_lowrank.schemes.channel import Channel
from onnx_lowrank.schemes.factors import SpatialFactors


def scheme(**changed: Any) -> type[Scheme]:
    """A scheme like `Channel` but for what is changed."""
    body = {"__doc__": "A scheme.", "name": "another", **changed}
    return dataclass(frozen=True)(type("Another", (Channel,), body))


class NoExpression(Factors):
    def reconstruct(self) -> Any:
        return np.zeros((1, 1))


class NoArrays(NoExpression):
    def multilinear(self) -> None:
        return None


def test_one_that_lacks_nothing_is_taken() -> None:
    with SCHEMES.adding(scheme()) as added:
        assert added in SCHEMES
    assert added not in SCHEMES


@pytest.mark.parametrize("cls", SCHEMES, ids=lambda cls: cls.name)
def test_those_of_the_list_lack_nothing(cls: type[Scheme]) -> None:
    assert lacks(cls) is None


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (scheme(name=""), "Another needs a name: letters, digits and hyphens"),
        (scheme(name="a:b"), "Another needs a name: letters, digits and hyphens"),
        (scheme(name="keep"), "and not 'dense' or 'keep', which plans use"),
        (Dense, "and not 'dense' or 'keep', which plans use"),
        (scheme(structures=()), "another does not say the classes of its factors"),
        (scheme(structures=(dict,)), "dict, a structure of another, is no subclass of Factors"),
        (
            scheme(structures=(SpatialFactors, NoExpression)),
            "NoExpression, a structure of another, does not define multilinear",
        ),
        (
            scheme(structures=(NoArrays,)),
            "NoArrays, a structure of another, has no arrays; make it a frozen dataclass",
        ),
        (
            scheme(
                structures=(
                    SpatialFactors,
                    make_dataclass("SpatialFactors", [], bases=(SpatialFactors,), frozen=True),
                )
            ),
            "another has two structures called SpatialFactors",
        ),
    ],
)
def test_what_one_lacks_is_said(cls: type[Scheme], reason: str) -> None:
    before = list(SCHEMES)
    with pytest.raises(ValueError, match=reason):
        SCHEMES.add(cls)
    assert list(SCHEMES) == before


def test_methods_and_ranks_that_are_missing_are_named() -> None:
    @dataclass(frozen=True)
    class Half(Scheme):
        R: int
        name = "half"
        structures = (SpatialFactors,)

    with pytest.raises(
        ValueError, match="half does not define fit, instances, limit, macs, params"
    ):
        SCHEMES.add(Half)

    class NoRanks(Dense):
        name = "same"

    with pytest.raises(ValueError, match="same has no ranks; make it a frozen dataclass"):
        SCHEMES.add(NoRanks)
