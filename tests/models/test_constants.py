"""Every constant of a search that is a number is tried at a lower and at a higher value."""

from __future__ import annotations

import constants

from onnx_lowrank.search.settings import SETTINGS


def test_every_number_has_a_lower_and_a_higher_value() -> None:
    numbers = {name: v for name, v in vars(SETTINGS).items() if isinstance(v, int | float)}
    assert constants.OTHERS.keys() == numbers.keys()
    for name, (low, high) in constants.OTHERS.items():
        assert low < numbers[name] < high, name
