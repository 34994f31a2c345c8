"""Outputs of mixed scales: divided where the units differ, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.measure.verification.comparison import OutputStatistics
from onnx_lowrank.measure.verification.scales import MOST_SLICES, Part, parts_of

RNG = np.random.default_rng(0)
Array = NDArray[np.float64]


def detector(samples: int = 3, classes: int = 6, anchors: int = 400, size: float = 320) -> Array:
    """Boxes in pixels above scores of classes, a few of which are high: (N, 4 + classes, A)."""
    boxes = size * RNG.random((samples, 4, anchors))
    logits = RNG.normal(-8, 1, (samples, classes, anchors))
    logits[:, :-1, ::40] += 9  # objects; the last class does not occur
    return np.concatenate([boxes, 1 / (1 + np.exp(-logits))], axis=1)


def split(*values: Array) -> tuple[Part, ...]:
    return parts_of((value, len(value)) for value in values)


@pytest.mark.parametrize("size", [32.0, 320.0, 4096.0])
def test_scores_are_a_part_beside_boxes_of_any_size(size: float) -> None:
    value = detector(size=size)
    boxes, scores = split(value[:1], value[1:])
    assert (boxes, scores) == (Part(1, (0, 1, 2, 3)), Part(1, tuple(range(4, 10))))
    assert scores.name("out") == "out[:, 4:10]"
    turned = split(np.moveaxis(value, 1, 2))
    assert [part.axis for part in turned] == [2, 2]
    assert turned[1].name("out") == "out[:, :, 4:10]"
    assert Part(1, (0, 2, 3, 9)).name("y") == "y[:, (0,2:4,9)]"


def test_an_output_of_one_sample_without_an_axis_of_samples_is_divided_too() -> None:
    value = detector(samples=1)[0]
    assert parts_of([(value, 1)])[1] == Part(0, tuple(range(4, 10)))


def test_what_is_of_one_scale_is_not_divided() -> None:
    features = RNG.standard_normal((4, 64, 7, 7)) * np.exp(RNG.normal(0, 1, (64, 1, 1)))
    sparse = np.maximum(features, 0)
    sparse[:, 10] = 0  # a channel that is off
    logits = RNG.standard_normal((4, 21, 30, 30)) * 5
    boxes = detector()[:, :4]
    for value in (features, sparse, logits, boxes, detector()[:, 4:], np.zeros((2, 3, 4))):
        assert split(value) == ()


def test_a_row_of_classes_is_not_divided() -> None:
    """One class may fill everything: that is no change of units."""
    scores = np.full((50, 10), 0.06)
    scores[:, 3] = 1
    assert split(scores) == split(scores[:, :, None]) == split(scores[:, :, None, None]) == ()
    assert len(split(np.repeat(scores[:, :, None], 2, axis=2))) == 2


def test_a_dead_part_is_not_held_to_anything() -> None:
    """Rounding, or classes far from any sample: an error as large as it is says nothing."""
    value = detector()
    value[:, 4:] = 1e-6 * RNG.random((3, 6, 400))
    assert split(value) == ()
    found = OutputStatistics("out")
    noisy = value.copy()
    noisy[:, 4:] *= 2
    found.add(value, noisy)
    assert found.sqnr_db is not None
    assert found.sqnr_db > 100


def test_a_background_that_fills_everything_is_a_part_beside_what_is_found() -> None:
    scores = np.zeros((4, 500, 3))
    scores[..., 1] = 1e-3  # found nowhere
    scores[:, ::100, 2] = 0.3
    scores[..., 0] = 1 - scores.sum(axis=2)
    assert split(scores) == (Part(2, (0,)), Part(2, (1, 2)))
    scores[..., 2] = 1e-3
    assert split(scores) == ()


def test_too_few_values_and_too_long_axes_are_not_divided() -> None:
    row = np.array([[[100.0, 0.1], [100.0, 0.1]]])
    assert split(row) == ()
    assert len(split(np.repeat(row, 4, axis=0))) == 2
    long = np.ones((8, MOST_SLICES + 1, 2))
    long[:, 0] = 1000
    assert split(long) == ()
    assert len(split(long[:, :-1])) == 2


def test_the_worst_part_counts_and_the_output_is_never_better_than_it() -> None:
    value = detector()
    lost = value.copy()
    lost[:, 4:] = 0  # no detection is left
    whole = 10 * np.log10((value**2).sum() / ((lost - value) ** 2).sum())
    assert whole > 25  # and passes where only the whole is looked at
    found = OutputStatistics("out")
    for index in range(3):
        found.add(value[index : index + 1].astype(np.float32), lost[index : index + 1])
    assert found.sqnr_db == pytest.approx(0, abs=1e-6)
    figures = found.to_dict()
    assert [part["part"] for part in figures["parts"]] == ["out[:, 0:4]", "out[:, 4:10]"]
    (failure,) = found.failures(25, None)
    assert failure == (
        "output 'out': SQNR 0.00 dB of out[:, 4:10], which is of another scale than the rest, is "
        "below 25 dB"
    )
    found = OutputStatistics("out")
    near = value * (1 + 0.01 * RNG.standard_normal(value.shape))
    found.add(value, near)
    assert found.failures(35, None) == []  # errors of a hundredth everywhere: 40 dB
    assert found.failures(45, None)


def test_sizes_that_change_between_batches_are_not_compared_by_place() -> None:
    found = OutputStatistics("rows")
    for rows in (30, 31):
        value = np.concatenate([320 * RNG.random((rows, 4)), RNG.random((rows, 1))], axis=1)
        lost = value.copy()
        lost[:, 4] = 0
        found.add(value, lost, samples=1)
    assert [part.axis for part, _ in found.parts] == [1, 1]
    assert found.sqnr_db == 0
