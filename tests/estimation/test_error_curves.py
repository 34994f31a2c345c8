from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.estimation.error_curves import (
    LEAST_ROWS,
    OutputSpectrum,
    output_spectrum,
    predicted_error,
)
from onnx_lowrank.schemes import SchemeSpec
from onnx_lowrank.types import Array

CONV = ConvSpec(
    in_channels=16,
    out_channels=32,
    kernel=(3, 3),
    strides=(1, 1),
    dilations=(1, 1),
    pads=(1, 1, 1, 1),
    input_size=(8, 8),
    output_size=(8, 8),
)


def outputs(seed: int, rank: int, channels: int = 32, images: int = 6) -> list[Array]:
    """Rows that vary in `rank` directions, around a mean."""
    basis = np.random.default_rng(9).standard_normal((rank, channels))
    rng = np.random.default_rng(seed)
    scales = np.linspace(3, 0.5, rank)
    return [5 + (rng.standard_normal((200, rank)) * scales) @ basis for _ in range(images)]


def found(samples: list[Array]) -> OutputSpectrum:
    spectrum = output_spectrum(samples)
    assert spectrum is not None
    return spectrum


def test_outputs_of_low_rank_leave_nothing_beyond_it() -> None:
    spectrum = found(outputs(0, 5))
    assert spectrum.left[0] == pytest.approx(1, abs=0.02)
    assert np.all(np.diff(spectrum.left) <= 1e-12)
    assert spectrum.left[5] < 1e-12
    assert spectrum.error(4) > 0.01


def test_what_is_left_is_that_of_samples_not_seen() -> None:
    spectrum = found(outputs(0, 20))
    unseen = np.concatenate(outputs(1, 20)) - spectrum.mean
    for rank in (2, 8, 14):
        kept = unseen @ spectrum.basis[:, :rank]
        left = 1 - np.sum(kept**2) / np.sum(unseen**2)
        assert spectrum.left[rank] == pytest.approx(left, rel=0.1)


def test_the_change_is_what_the_spectrum_says() -> None:
    spectrum = found(outputs(0, 20))
    values = np.stack([x.T.reshape(32, 20, 10) for x in outputs(3, 20)]).astype(np.float32)
    change, lost = spectrum.change(values, 8, axis=1)
    assert change.shape == values.shape
    assert lost == pytest.approx(spectrum.left[8], rel=0.15)
    rows = np.moveaxis(values + change, 1, -1).reshape(-1, 32) - spectrum.mean
    assert np.linalg.matrix_rank(rows, tol=1e-2) == 8


def test_few_rows_of_many_channels_tell_of_as_many_directions() -> None:
    few = [x[:30] for x in outputs(0, 5, channels=200, images=4)]
    spectrum = found(few)
    assert spectrum.basis.shape == (200, 60)
    assert spectrum.error(5) < 1e-6
    assert spectrum.error(200) == 0
    assert output_spectrum([x[: LEAST_ROWS // 2 - 1] for x in few]) is None
    assert output_spectrum([np.ones((100, 4))] * 4) is None  # nothing varies


def test_channel_is_the_spectrum_at_its_rank_and_others_lose_less() -> None:
    spectrum = found(outputs(0, 30))

    def error(text: str) -> float | None:
        return predicted_error(SchemeSpec.parse(text).resolve(CONV), CONV, spectrum)

    for rank in (4, 8, 16):
        assert error(f"channel:R={rank}") == pytest.approx(spectrum.error(rank), rel=1e-9)
    channel, cp = error("channel:R=4"), error("cp:R=14")
    assert channel is not None
    assert cp is not None
    assert cp < channel
    assert error("mono:C=4") is None
