"""Which models are timed again."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_lowrank.runtime.bench import Contender
from onnx_lowrank.search import timing
from onnx_lowrank.search.timing import Stopwatch

ROUNDS = 3
# Noise of each model's logarithmic latency: the third one's ratio is never known well enough.
SPREADS = (0.0, 1e-3, 1.0)
RATIOS = (1.0, 0.5, 0.25)


def test_only_those_not_known_well_enough_are_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rounds: list[list[str]] = []

    def measure(contenders: Sequence[Contender], *, repeats: int, **_: Any) -> Any:
        rounds.append([each.name for each in contenders])
        timings = []
        for each in contenders:
            place = int(each.name)
            noise = SPREADS[place] * rng.standard_normal((repeats, ROUNDS))
            timings.append(SimpleNamespace(block_medians=0.01 * RATIOS[place] * np.exp(noise)))
        return timings, None

    monkeypatch.setattr(timing, "measure", measure)
    first, second, third = Stopwatch().compare([onnx.ModelProto()] * 3, {})
    assert rounds == [["0", "1", "2"], ["0", "2"], ["0", "2"]]
    assert first.ratio == 1
    # Three deviations of one of the 24 logarithms whose middle this is.
    assert abs(np.log(second.ratio / 0.5)) < 3 * SPREADS[1]
    assert second.high / second.low < 1.02
    assert third.high / third.low > 1 + 2 * Stopwatch().settings.narrow
    assert third.seconds == pytest.approx(0.01 * third.ratio)
