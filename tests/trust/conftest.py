"""The modules of this folder and the builders of small models are importable by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from counts import Record  # noqa: E402


@pytest.fixture
def trust_record(request: pytest.FixtureRequest) -> Record:
    """Give a function that puts counts into the table at the end of the run."""

    def record(name: str, counts: Mapping[str, int]) -> None:
        request.node.user_properties.append(("trust", {name: dict(counts)}))

    return record
