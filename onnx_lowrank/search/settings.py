"""The constants of a search; where a value was measured or is tested, its description says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from onnx_lowrank.runtime.statistics import MIN_REPEATS


@dataclass(frozen=True)
class RankSteps:
    """Ranks of a scheme that are tried.

    Attributes
    ----------
    shares : tuple of float
        Of the layer's multiply-adds, one for every step.
    fitted : tuple of float
        Those that are fitted before anything is chosen: what the others lose is predicted.
    slope : float
        Power of the share to which the ratio of its errors to those of a closed form goes: in nine
        layers of VGG-16 with more than `small_patch` entries, between shares of .1 and .56, cp has
        -.34 to -.23, spatial -.34 to -.16, tucker2 -.01 to .08.
    proportions : mapping of str to float
        By how much the share of a rank in its limit is larger than those of the others, by name.
    """

    shares: tuple[float, ...]
    fitted: tuple[float, ...] = (0.13,)
    slope: float = 0.0
    proportions: Mapping[str, float] = field(default_factory=dict)


SHARES = (0.75, 0.56, 0.42, 0.32, 0.24, 0.18, 0.13, 0.1, 0.07, 0.05, 0.035)
RANK_STEPS: Mapping[str, RankSteps] = MappingProxyType(
    {
        "cp": RankSteps(SHARES[3::2], fitted=(0.1,), slope=-0.27),
        "spatial": RankSteps(SHARES[:9], slope=-0.2),
        "tucker2": RankSteps(SHARES[1:10], proportions={"R1": 0.75, "R2": 1.25}),
    }
)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How long a search measures, how far it looks, and when it stops.

    What the numbers are worth, each at a lower and a higher value, is what `models/results.py run
    constants` measures, for the section of that name in models/RESULTS.md. Which structures and
    ranks are tried comes from its section "VGG-16 by one scheme in all layers" and from
    models/results/held_out.md.

    Attributes
    ----------
    shares : tuple of float
        Of a layer's multiply-adds, at which schemes are tried: each step cuts about a quarter.
    rank_steps : mapping of str to RankSteps
        By scheme, where a scheme's steps are others. At equal operations Tucker-2 loses less with
        the larger rank at the outputs; CP takes ten times as long to fit as the others.
    positions : int
        Output positions of an image whose patches the statistics are taken from: with half as many
        as 512, fits of two layers of VGG-16 to 61 crops lose .1 to .6 % more on 75 others.
    small_patch : int
        Entries of a patch up to which a layer is fitted at all ranks, and not at some first.
    left_out : tuple of str
        Schemes for those who ask for them: blocks of Tucker-2 lose more than it at equal
        operations, and grouped convolutions run slower.
    channel_blocks : tuple of int
        Ranks are whole numbers of these, small ones of the first: the channel blocks of
        onnxruntime's convolutions with AVX2 and AVX-512, which pad what does not fill one.
    most_colours : int
        Input channels up to which a colour transform is tried; with more there is little to mix.
    least_share : float
        Share of all multiply-adds and of all parameters: a layer below both is kept.
    least_saving : float
        Share of what all layers could save: those that together could save less are kept.
    least_gain : float
        Share of the time that a model must save to be worth a search.
    model_seconds : float
        Of runs of a whole model in a round of repeats, at most: the first takes a sixteenth of it.
    narrow : float
        Half the interval of a ratio, relative, at which it is known well enough.
    most_repeats : int
        Repeats after which a ratio is taken as it is: three times those that an interval needs.
    rough_rounds, part_rounds : int
        Rounds of candidates that are timed roughly, and of layers beside the whole model.
    apart : float
        Ratio of the operations of the two candidates of a scheme and form that are timed roughly.
    clearly_slower : float
        Factor by which rough ratios of latencies are uncertain.
    most_timings : int
        Turns of choosing at several losses and of timing precisely what was chosen.
    damages, faster : tuple of float
        Where candidates are chosen to be timed precisely: predicted damages over `first_damage`,
        and speeds over the one asked for.
    probe_error : float
        Relative error of the candidate that shows how a layer's errors carry through the network.
    probe_samples : int
        Samples on which that candidate runs, the same for all layers: what they have in common
        does not change what is chosen.
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

    shares: tuple[float, ...] = SHARES
    rank_steps: Mapping[str, RankSteps] = field(default_factory=lambda: RANK_STEPS)
    positions: int = 256
    small_patch: int = 1152
    left_out: tuple[str, ...] = ("bicluster-svd", "bicluster-outer")
    channel_blocks: tuple[int, int] = (8, 16)
    most_colours: int = 16
    least_share: float = 0.005
    least_saving: float = 0.02
    least_gain: float = 0.03
    model_seconds: float = 1.0
    narrow: float = 0.05
    most_repeats: int = 3 * MIN_REPEATS
    rough_rounds: int = 2
    part_rounds: int = 4
    apart: float = 8.0
    clearly_slower: float = 1.15
    most_timings: int = 3
    damages: tuple[float, ...] = (1 / 16, 1 / 4, 1, 4, 16)
    faster: tuple[float, ...] = (1.0, 1.1)
    probe_error: float = 0.15
    probe_samples: int = 4
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
