"""What margins tell of samples that change sides, beside what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.search.margins import Margins
from onnx_lowrank.search.quality import Quality
from onnx_lowrank.search.settings import SETTINGS

CLASSES = 10


def scores(rng: np.random.Generator, samples: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Return centred logits with one class ahead, and the same with errors of their own size."""
    ours = rng.standard_normal((samples, CLASSES))
    ours[np.arange(samples), rng.integers(CLASSES, size=samples)] += 4
    ours -= ours.mean(axis=1, keepdims=True)
    size = error * rng.uniform(0.5, 1.5, (samples, 1))
    theirs = ours + size * rng.standard_normal(ours.shape)
    return ours, theirs - theirs.mean(axis=1, keepdims=True)


def alike(ours: np.ndarray, theirs: np.ndarray) -> Margins:
    return Margins.of(ours, theirs, ours.argmax(axis=1))


def quality(margins: Margins) -> Quality:
    return Quality(0.1, 10.0, margins.drop, margins.expected_drop, margins.samples, margins)


@pytest.mark.parametrize("error", [0.1, 0.3, 0.6])
def test_expected_numbers_are_those_of_gaussian_errors(error: float) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = scores(rng, 40_000, error)
    wanted = ours.argmax(axis=1)
    wrong = rng.random(len(wanted)) < 0.1
    wanted[wrong] = rng.integers(CLASSES, size=wrong.sum())
    found = Margins.of(ours, theirs, wanted)
    before, after = ours.argmax(axis=1) == wanted, theirs.argmax(axis=1) == wanted
    assert found.lost == np.count_nonzero(before & ~after)
    assert found.gained == np.count_nonzero(~before & after)
    assert found.drop == pytest.approx(100 * (before.mean() - after.mean()))
    # Counts have standard errors of their roots; the rest is that the runner-up may change, which
    # loses more than the margin to the first one tells: within a third at these errors.
    assert found.expected_lost == pytest.approx(found.lost, rel=0.33, abs=3 * found.lost**0.5)
    assert found.expected_gained == pytest.approx(found.gained, rel=0.5, abs=4 * found.gained**0.5)


def test_few_samples_tell_more_by_their_margins_than_by_counts() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = scores(rng, 40_000, 0.3)
    true = alike(ours, theirs).drop
    found = []
    for _ in range(200):
        places = rng.choice(len(ours), 72, replace=False)
        some = alike(ours[places], theirs[places])
        found.append((some.drop, some.expected_drop))
    counted, expected = (
        np.sqrt(np.mean((np.array(each) - true) ** 2)) for each in zip(*found, strict=True)
    )
    assert expected < 0.7 * counted


def test_a_common_factor_of_all_scores_changes_no_side() -> None:
    ours, _ = scores(np.random.default_rng(2), 500, 0)
    found = alike(ours, 0.7 * ours)
    assert (found.lost, found.drop) == (0, 0)
    # Rounding of float64 is all that is left of the errors.
    assert found.expected_lost < 1e-6
    assert found.chance(0, 1000) == 1


def test_the_model_itself_loses_nothing_for_certain() -> None:
    ours, _ = scores(np.random.default_rng(3), 50, 0)
    found = alike(ours, ours)
    assert found == Margins(50, 0, 0, 0.0, 0.0, 0.0, 1.0)
    assert found.chance(0, 1000) == 1


@pytest.mark.parametrize("samples", [72, 1000])
@pytest.mark.parametrize("most", [0.5, 1.0, 3.0])
def test_what_is_likely_comes_true_as_often(samples: int, most: float) -> None:
    rng = np.random.default_rng(4)
    chances, held = [], []
    for _ in range(300):
        ours, theirs = scores(rng, samples + 500, rng.uniform(0.01, 0.2))
        seen = alike(ours[:samples], theirs[:samples])
        chances.append(seen.chance(most, 500))
        held.append(alike(ours[samples:], theirs[samples:]).drop <= most)
    sure = np.array(chances) >= SETTINGS.least_probability
    # Of 30 at 90 % the standard error is 5.5 points: three of them below is no chance.
    assert np.count_nonzero(sure) >= 30
    assert np.mean(np.array(held)[sure]) >= SETTINGS.least_probability - 0.165
    # Nor is it told to be unlikely without reason, though it errs on the side of caution, as
    # trained networks lose more than Gaussian errors of one size tell.
    assert -0.05 < np.mean(held) - np.mean(chances) < 0.25


def test_one_of_few_samples_does_not_decide() -> None:
    budget = Budget(max_drop=1)
    far = Margins(72, 1, 0, 0.1, 0.0, 0.3, 1.0)
    assert far.drop > 1
    assert quality(far).within(budget, unseen=204)
    near = Margins(72, 1, 0, 0.8, 0.0, 0.3, 1.0)
    assert not quality(near).within(budget, unseen=204)
    many = Margins(7200, 100, 0, 10.0, 0.0, 0.03, 1.0)
    assert not quality(many).within(budget, unseen=204)  # counts of many outweigh the margins
    kept = Margins(7200, 60, 0, 60.0, 0.0, 0.03, 1.0)
    assert quality(kept).within(budget, unseen=204)
    # A bound on the signal is held all the same.
    assert not quality(far).within(Budget(max_drop=1, min_sqnr_db=20), unseen=204)


def test_more_is_expected_the_more_was_counted() -> None:
    chances = [Margins(500, lost, 0, 3.0, 0.0, 0.2, 1.0).chance(1, 500) for lost in (0, 3, 9, 20)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] - chances[-1] > 0.5
    gains = [Margins(500, 9, gained, 3.0, 3.0, 0.2, 1.0).chance(1, 500) for gained in (0, 9)]
    assert gains[0] < gains[1]


def test_samples_without_any_error_do_not_hide_the_others() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = scores(rng, 100, 0.0)
    lost = rng.choice(100, 40, replace=False)
    theirs[lost] = np.roll(ours[lost], 1, axis=1)
    found = alike(ours, theirs)
    assert found.lost >= 35  # few rolls leave the class where it was
    assert found.expected_lost > 0
    assert found.chance(1.0, 1000) < 1 - SETTINGS.least_probability
    assert not quality(found).within(Budget(max_drop=1.0))


def test_what_was_counted_outweighs_margins_that_expect_nothing() -> None:
    found = Margins(100, 5, 0, expected_lost=0.0, expected_gained=0.0, error=0.0, design=1.0)
    assert found.chance(1.0, 1000) == 0.0
