"""The constants of a search; where a value was measured or is tested, its description says so."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_lowrank.runtime.statistics import MIN_REPEATS


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How long a search measures, how far it looks, and when it stops.

    Attributes
    ----------
    least_share : float
        Share of all multiply-adds and of all parameters: a layer below both is kept.
    cheaper_per_operation : float
        How many times faster per operation one structure may run than another: a candidate is not
        timed where another one has so many times fewer operations and no larger error.
    layer_seconds, part_seconds, model_seconds : float
        Of runs in a round of repeats: of candidates of a layer, of layers beside the model, of
        whole models.
    narrow : float
        Half the interval of a ratio, relative, at which it is known well enough.
    most_repeats : int
        Repeats after which a ratio is taken as it is: twice those that an interval needs.
    rough_repeats : int
        Repeats of a rough timing.
    clearly_slower : float
        Ratio of two rough latencies that is no chance.
    probe_error : float
        Relative error of the candidate that shows how a layer's errors carry through the network.
    probe_samples : int
        Samples on which that candidate runs: its noise, a ratio of sums over all outputs, settles
        early.
    first_damage : float
        Where the search for the damage that is allowed begins: errors of a tenth of the signal.
    close : float
        Ratio of allowed to refused damage at which it ends.
    most_evaluations, most_refits, most_corrections : int
        Of whole models: measured, refitted, and timed to correct the prediction.
    off : float
        A whole model's latency off by more shows that single layers' times mislead.
    fast_enough : float
        A model that many times faster than asked for is fast enough, and not too fast.
    least_probability : float
        Probability that other samples keep a bound, at which a model counts as within it. In
        tests/search/test_margins.py random classifiers of that probability keep it about as often.
    refit_probability : float
        Probability that the verdict agrees, at which a search goes on to what only refits allow.
    """

    least_share: float = 0.005
    cheaper_per_operation: float = 1.5
    layer_seconds: float = 0.1
    part_seconds: float = 1.0
    model_seconds: float = 4.0
    narrow: float = 0.05
    most_repeats: int = 2 * MIN_REPEATS
    rough_repeats: int = 2
    clearly_slower: float = 1.15
    probe_error: float = 0.15
    probe_samples: int = 32
    first_damage: float = 0.01
    close: float = 1.08
    most_evaluations: int = 10
    most_refits: int = 3
    most_corrections: int = 4
    off: float = 0.1
    fast_enough: float = 1.04
    least_probability: float = 0.9
    refit_probability: float = 0.9


SETTINGS = SearchSettings()
"""Those of every search that says nothing else."""
