"""What a whole model loses on samples that the fits did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_lowrank.measure.verification.report import DEFAULT_SQNR_DB
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.search.margins import Margins
from onnx_lowrank.search.prediction import MeanPredictor
from onnx_lowrank.search.settings import SETTINGS


@dataclass(frozen=True)
class Quality:
    """How far a model's outputs are from the original's.

    Attributes
    ----------
    noise : float
        Squared error over squared signal of the scores (logits, centred) of a classifier, of the
        worst output otherwise: what single layers' errors add up to.
    sqnr_db : float
        Least signal-to-error ratio of all float outputs as they are, of their parts where they hold
        values of different scales, in dB; infinite for no error.
    drop : float or None
        What is lost of a user's score where there is one; otherwise points of accuracy where there
        are labels, of top-1 agreement where not; None where there are no classes.
    expected_drop : float or None
        The same as expected of Gaussian errors of the margins as large as those measured: it does
        not depend on which of the few samples happened to change sides. None for a user's score.
    samples : int
        Number of samples.
    margins : Margins or None
        Where both drops come from; None for a user's score.
    sqnr : MeanPredictor or None
        What `sqnr_db` says of other samples; None where they do not allow to estimate it.
    common : float or None
        Share of the samples that the original puts into one class, where the drop is of top-1
        agreement: a model with one answer for all loses the others alone.
    varying_db : float or None
        Then the ratio of how the scores vary over the samples to their errors, in dB: what is held
        to a bound where such a model would be within `max_drop`, as in the verdict.
    """

    noise: float
    sqnr_db: float
    drop: float | None
    expected_drop: float | None
    samples: int
    margins: Margins | None = None
    sqnr: MeanPredictor | None = None
    common: float | None = None
    varying_db: float | None = None

    def within(
        self,
        budget: Budget,
        *,
        unseen: int | None = None,
        probability: float = SETTINGS.least_probability,
    ) -> bool:
        """Whether the model is within the budget's bounds on quality.

        The signal-to-error ratio is where `unseen` other samples, by default as many, keep the
        bound with that probability: at the bound itself, they would miss it as often as not. The
        points lost are where both those counted and those expected are; one of few samples may be
        more than the bound, so that it is also enough if other samples keep it with that
        probability.
        """
        if (least := budget.min_sqnr_db) is not None:
            if not self.sqnr_db >= least:
                return False
            chance = 1.0 if self.sqnr is None else self.sqnr.chance(least, unseen or self.samples)
            if not chance >= probability:
                return False
        if budget.max_drop is None:
            return True
        assert self.drop is not None
        if not scores_hold(self.common, self.varying_db, budget):
            return False
        expected = self.drop if self.expected_drop is None else self.expected_drop
        if max(self.drop, expected) <= budget.max_drop:
            return True
        if self.margins is None:
            return False
        return self.margins.chance(budget.max_drop, unseen or self.samples) >= probability

    def room(
        self,
        budget: Budget,
        *,
        unseen: int | None = None,
        probability: float = SETTINGS.least_probability,
    ) -> float | None:
        """Return about how many times as much noise the budget allows; None where it tells nothing.

        Noise is in proportion to the inverse of the signal-to-error ratio; samples change sides in
        proportion to its root.
        """
        rooms = []
        if (least := budget.min_sqnr_db) is not None and np.isfinite(self.sqnr_db):
            if self.sqnr is not None:
                least += self.sqnr.margin(unseen or self.samples, probability)
            rooms.append(10 ** ((self.sqnr_db - least) / 10))
        if budget.max_drop and self.expected_drop is not None and self.expected_drop > 0:
            rooms.append((budget.max_drop / self.expected_drop) ** 2)
        return min(rooms, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "noise": self.noise,
            "sqnr_db": self.sqnr_db,
            "drop": self.drop,
            "expected_drop": self.expected_drop,
            "samples": self.samples,
            "margins": None if self.margins is None else vars(self.margins),
            "sqnr": None if self.sqnr is None else vars(self.sqnr),
            "common": self.common,
            "varying_db": self.varying_db,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Quality:
        """Read what `to_dict` gave."""
        margins = None if data["margins"] is None else Margins(**data["margins"])
        sqnr = None if data["sqnr"] is None else MeanPredictor(**data["sqnr"])
        drop, expected = data["drop"], data["expected_drop"]
        scores = (data["common"], data["varying_db"])
        return cls(
            data["noise"], data["sqnr_db"], drop, expected, data["samples"], margins, sqnr, *scores
        )


def scores_hold(common: float | None, varying: float | None, budget: Budget) -> bool:
    """Whether the scores vary as the original's where agreement says nothing, as in the verdict."""
    if common is None or budget.max_drop is None or common < 1 - budget.max_drop / 100:
        return True
    least = DEFAULT_SQNR_DB if budget.min_sqnr_db is None else budget.min_sqnr_db
    return varying is not None and varying >= least
