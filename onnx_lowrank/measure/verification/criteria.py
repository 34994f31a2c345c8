"""What is asked for, held against what was measured; what was not measured is not passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_lowrank.measure.verification.classification import Classification
from onnx_lowrank.measure.verification.comparison import OutputStatistics
from onnx_lowrank.measure.verification.report import DEFAULT_DROP, DEFAULT_SQNR_DB, Tolerance

MOSTLY = 0.95  # a class of so large a share of the samples is worth a note, whatever is asked for


@dataclass(frozen=True)
class Measured:
    """What two models were found to differ in.

    Attributes
    ----------
    outputs : sequence of OutputStatistics
        Of every output in common.
    classes : Classification or None
        Of the classifier's output, where there is one.
    no_classes : str
        Why there is none.
    labelled : bool
        Whether the data have labels.
    score : dict
        The user's score of both, as of `EngineResult`; empty without one.
    samples : int
        Number of samples compared.
    """

    outputs: Sequence[OutputStatistics]
    classes: Classification | None
    no_classes: str
    labelled: bool
    score: dict[str, Any]
    samples: int

    @property
    def floats(self) -> bool:
        """Whether any output is of floats, or empty."""
        return not self.outputs or any(each.equal is None for each in self.outputs)


def asked_for(tolerance: Tolerance | None, measured: Measured) -> Tolerance:
    """Return the tolerance given, or what is asked for without one: what the data can show."""
    if tolerance is not None:
        return tolerance
    return Tolerance(
        min_sqnr_db=DEFAULT_SQNR_DB if measured.floats else None,
        max_drop=DEFAULT_DROP if measured.labelled else None,
    )


def failures_of(measured: Measured, asked: Tolerance, *, runnable: bool) -> list[str]:
    """Return a sentence for each bound that is not held, or was not measured.

    `runnable` says whether the models take and give the same: where not, that is the reason.
    """
    failures = []
    for statistics in measured.outputs:
        failures += statistics.failures(asked.min_sqnr_db, asked.min_equal)
    if not runnable:
        return failures
    # Of outputs that differ in shape or hold NaN, what was not measured is said already.
    broken = bool(failures)
    if not measured.samples:
        failures.append("no sample was compared; give data")
    elif not any(each.entries for each in measured.outputs):
        failures.append("no output holds any value on these samples; give other samples")
    elif asked.min_sqnr_db is not None and not any(each.compared for each in measured.outputs):
        failures.append(
            f"an SQNR of {asked.min_sqnr_db:g} dB is asked for, but was not measured: no output "
            "holds any float on these samples; give other samples, or leave that bound out"
        )
    for found in (_drop(measured, asked), _top1(measured, asked), _score_drop(measured, asked)):
        if found is not None and not (broken and found.startswith(_UNMEASURED)):
            failures.append(found)
    return failures


_UNMEASURED = "not measured: "
_ONE_SAMPLE = (
    "on one sample, top-1 agreement cannot tell a good model from one with one answer for all"
)


def _drop(measured: Measured, asked: Tolerance) -> str | None:
    most = asked.max_drop
    if most is None:
        return None
    accuracy = {} if measured.classes is None else measured.classes.accuracy()
    if not accuracy:
        why = measured.no_classes if measured.labelled else "the data have no labels"
        remedy = (
            "bound --min-sqnr or a --score instead; without a bound, --labels none"
            if measured.labelled
            else "give labelled data, or bound --min-top1 instead"
        )
        return f"{_UNMEASURED}accuracy may fall by {most:g} points, but {why}; {remedy}"
    if accuracy["drop_points"] <= most:
        return None
    before, after = 100 * accuracy["original"], 100 * accuracy["compressed"]
    return (
        f"accuracy fell by {accuracy['drop_points']:.2f} points, from {before:.2f} % to "
        f"{after:.2f} %; at most {most:g} are allowed"
    )


def _top1(measured: Measured, asked: Tolerance) -> str | None:
    least, classes = asked.min_top1, measured.classes
    if least is None:
        return None
    if classes is None:
        return (
            f"{_UNMEASURED}a top-1 agreement of {least:g} is asked for, but {measured.no_classes}; "
            "bound --min-sqnr instead"
        )
    top1 = classes.agreement()["top1"]
    if not top1 >= least:
        return f"top-1 agreement {top1:.4f} is below {least:g}"
    if not agreement_is_void(classes, least):
        return None
    ratio, wanted = classes.varying_sqnr_db, _scores_bound(asked)
    if ratio >= wanted:
        return None
    if classes.samples == 1:
        return f"{_UNMEASURED}{_ONE_SAMPLE}; give more samples, or bound --min-sqnr alone"
    return (
        f"top-1 agreement of {least:g} is asked for, but {_one_class(classes)}; the scores instead "
        f"have an SQNR of {ratio:.2f} dB against how they vary over the samples, below {wanted:g} "
        "dB; give data of several classes"
    )


def agreement_is_void(classes: Classification, least: float) -> bool:
    """Whether a model that always gives one answer reaches a top-1 agreement asked for."""
    return 0 < least <= classes.common


def _scores_bound(asked: Tolerance) -> float:
    return DEFAULT_SQNR_DB if asked.min_sqnr_db is None else asked.min_sqnr_db


def _score_drop(measured: Measured, asked: Tolerance) -> str | None:
    most, score = asked.max_score_drop, measured.score
    if most is None:
        return None
    if not score:
        return f"{_UNMEASURED}the loss of a score is bounded, but there is none; give --score"
    if score["drop"] <= most:
        return None
    return (
        f"the score '{score['name']}' fell by {score['drop']:.4g}, from {score['original']:.4g} "
        f"to {score['compressed']:.4g}; at most {most:g} is allowed"
    )


def _one_class(classes: Classification) -> str:
    return (
        f"the original puts {100 * classes.common:.2f} % of these samples into one class, so that "
        "a model with one answer for all would agree as often"
    )


def notes_of(measured: Measured, asked: Tolerance) -> tuple[str, ...]:
    """Return sentences on figures that say nothing on these samples, and on what counted then."""
    classes = measured.classes
    if classes is None:
        return ()
    notes = []
    least = asked.min_top1
    if classes.samples == 1:
        if least is not None or not measured.labelled:
            notes.append(f"top-1 agreement says nothing here: {_ONE_SAMPLE}")
    elif least is not None and agreement_is_void(classes, least):
        notes.append(
            f"top-1 agreement says nothing here: {_one_class(classes)}; the scores count instead: "
            f"SQNR {classes.varying_sqnr_db:.2f} dB against how they vary over the samples, at "
            f"least {_scores_bound(asked):g}"
        )
    elif not measured.labelled and classes.common >= MOSTLY:
        notes.append(f"top-1 agreement says nothing here: {_one_class(classes)}")
    accuracy = classes.accuracy()
    if accuracy and 100 * (accuracy["original"] - classes.common_label) <= (asked.max_drop or 0):
        notes.append(
            f"accuracy says little here: {100 * classes.common_label:.2f} % of these samples have "
            "one label, so that a model with one answer for all would be within the bound too"
        )
    return tuple(notes)
