"""What a verdict asks for, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from onnx_lowrank.bounds import SQNR_CAP_DB, SQNR_REMEDY, check_number
from onnx_lowrank.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What a verdict asks for; None asks for nothing.

    A bound that is asked for and cannot be measured fails, with the reason. Where `verify` is given
    no tolerance at all, it asks for `DEFAULT_SQNR_DB` and, where there are labels, for
    `DEFAULT_DROP`.

    Attributes
    ----------
    min_sqnr_db : float or None
        Least signal-to-error ratio of every float output, in dB, -300 to 300; of its worst part
        where it holds values of different scales.
    max_drop : float or None
        Most points of accuracy that may be lost, 0 to 100.
    min_top1 : float or None
        Least share of samples whose first class is the same in both models, 0 to 1. Where a model
        that always gives one answer reaches it, the scores are held to a ratio instead: that of
        `min_sqnr_db`, or of `DEFAULT_SQNR_DB`.
    min_equal : float or None
        Least share of equal entries of every integer, boolean or string output, 0 to 1.
    max_score_drop : float or None
        Most that may be lost of a user's score, in its units, 0 or more.

    Raises
    ------
    DataError
        A bound is not finite or out of its range.
    """

    min_sqnr_db: float | None = None
    max_drop: float | None = None
    min_top1: float | None = None
    min_equal: float | None = 0.9
    max_score_drop: float | None = None

    def __post_init__(self) -> None:
        share = "give a share of the samples from 0 to 1, such as 0.99 for 99 %"
        for name, remedy, least, most in (
            ("min_sqnr_db", SQNR_REMEDY, -SQNR_CAP_DB, SQNR_CAP_DB),
            ("max_drop", "give points from 0 to 100", 0.0, 100.0),
            ("min_top1", share, 0.0, 1.0),
            ("min_equal", share.replace("samples", "entries"), 0.0, 1.0),
            ("max_score_drop", "give 0 or more, in the score's units", 0.0, math.inf),
        ):
            check_number(name, getattr(self, name), remedy, DataError, least=least, most=most)


DEFAULT_SQNR_DB = 20.0
DEFAULT_DROP = 1.0


@dataclass(frozen=True)
class EngineResult:
    """What was measured in one engine.

    Attributes
    ----------
    outputs : tuple of dict
        For each output ``name``, ``max_abs``, ``rms``, ``sqnr_db`` and ``cosine``, None where the
        output is not of floats or not finite; ``equal``, the share of equal entries, where it is
        not of floats; ``parts``, each with its ``part`` and ``sqnr_db``, where it holds values of
        different scales: the worst is the output's.
    agreement : dict
        ``top1`` and ``top5``, None where there is no classifier output; ``top5`` also where there
        are not more than 5 classes.
    accuracy : dict
        Empty without labels or classifier output; otherwise ``original`` and ``compressed`` (0 to
        1), ``drop_points`` and its ``drop_interval``, ``confidence``, ``samples``.
    top1_interval : (float, float) or None
        Wilson score interval, at 95 %, of the top-1 agreement.
    failures : tuple of str
        Sentences; empty if passed.
    score : dict
        Of a user's score: ``name``, ``original``, ``compressed``, ``drop``; empty without one.
    settings : dict of str to str
        Settings of the engine, as of `onnx_lowrank.runtime.engines.LoadedModel`.
    """

    outputs: tuple[dict[str, Any], ...]
    agreement: dict[str, Any]
    accuracy: dict[str, Any]
    top1_interval: tuple[float, float] | None
    failures: tuple[str, ...]
    score: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifyReport:
    """The verdict on a compressed model.

    Attributes
    ----------
    results : dict of str to EngineResult
        Engine's name -> what was measured there.
    unchecked : dict of str to str
        Engine's name -> why nothing was measured there.
    samples : int
        Number of samples compared.
    classifier : str or None
        The output whose classes were compared.
    notes : tuple of str
        Sentences on what was not compared or not read, and why.
    """

    results: dict[str, EngineResult]
    unchecked: dict[str, str]
    samples: int
    classifier: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the model failed, one sentence each; empty if it passed."""
        return tuple(
            f"{name.upper()}: {failure}"
            for name, result in self.results.items()
            for failure in result.failures
        )

    @property
    def passed(self) -> bool:
        """Whether everything asked for holds in every engine checked."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, valid as JSON; top-level figures are the first engine's."""
        first = next(iter(self.results.values()))
        return {
            "version": 1,
            "passed": self.passed,
            "failures": list(self.failures),
            "notes": list(self.notes),
            "samples": self.samples,
            "outputs": [dict(o) for o in first.outputs],
            "agreement": dict(first.agreement),
            "accuracy": dict(first.accuracy),
            "score": dict(first.score),
            "providers": {
                **{
                    name: {
                        "checked": True,
                        "passed": not result.failures,
                        "outputs": [dict(o) for o in result.outputs],
                        "agreement": dict(result.agreement),
                        "accuracy": dict(result.accuracy),
                        "score": dict(result.score),
                        "top1_interval": result.top1_interval and list(result.top1_interval),
                        "session": dict(result.settings),
                    }
                    for name, result in self.results.items()
                },
                **{
                    name: {"checked": False, "reason": reason}
                    for name, reason in self.unchecked.items()
                },
            },
        }
