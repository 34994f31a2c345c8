from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from onnx_lowrank.bounds import check_count, check_number, out_of_range, shown
from onnx_lowrank.errors import DataError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400])
def test_what_is_not_finite_is_in_no_range(value: Any) -> None:
    assert out_of_range(value)
    assert out_of_range(-value)
    with pytest.raises(DataError, match=r"^the rate is .*; give one above 0$"):
        check_number("the rate", value, "give one above 0", DataError, above=0)


@pytest.mark.parametrize("value", [None, "1", b"1", [1], 1j, True, object()])
def test_what_is_no_number_is_in_no_range(value: object) -> None:
    assert out_of_range(value)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 3)])
def test_the_ends_belong_to_a_range_but_above(value: Any) -> None:
    assert not out_of_range(value, least=0, most=1)
    assert out_of_range(value, above=0) == (value == 0)
    assert out_of_range(value, most=0.4) == (value > 0.4)
    check_number("x", value, "give another", DataError, least=0)


@pytest.mark.parametrize("value", [0, -1, 2**31, 10**400, 1.5, math.nan, math.inf, "3"])
def test_counts_are_integers_from_1(value: Any) -> None:
    with pytest.raises(DataError, match=r"^the limit is .*; give a "):
        check_count("the limit", value, DataError)
    for good in (None, 1, 7, 2**31 - 1, np.int64(3)):
        check_count("the limit", good, DataError)


def test_messages_stay_short() -> None:
    assert shown(10**400) == "beyond all floats"
    assert shown(0.25) == "0.25"
    assert len(shown("x" * 1000)) == 40
