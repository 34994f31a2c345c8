"""What every scheme promises, over the list of schemes; a new one is tested by its line there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conformance import cases

from onnx_lowrank.schemes import SCHEMES


@pytest.mark.parametrize("check", cases(SCHEMES))
def test_conformance(check: Callable[[], None]) -> None:
    check()
