"""Where the time of a run goes."""

from __future__ import annotations

import pytest

from onnx_lowrank.step_seconds import StepSeconds


def test_a_step_within_another_counts_alone() -> None:
    time = [0.0]
    seconds = StepSeconds(lambda: time[0])
    time[0] = 1.0
    with seconds.step("choosing"):
        time[0] = 3.0
        with seconds.step("refits"):
            time[0] = 7.0
        time[0] = 8.0
        with seconds.step("refits"):
            time[0] = 8.5
    time[0] = 10.0
    assert seconds.to_dict() == {"choosing": 3.0, "refits": 4.5, "total": 10.0}


def test_a_step_that_fails_ends() -> None:
    time = [0.0]
    seconds = StepSeconds(lambda: time[0])

    def fail() -> None:
        with seconds.step("fits"):
            time[0] = 2.0
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    time[0] = 5.0
    assert seconds.to_dict() == {"fits": 2.0, "total": 5.0}
