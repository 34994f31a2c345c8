"""What schemes lose at ranks that were not fitted, from those that were.

Over the share of the multiply-adds that is left, the errors of all schemes on one layer fall
alike: how steeply depends on the layer. Schemes whose fit is a formula are fitted at all ranks,
which gives the curve; the ratio of another scheme's errors to it is close to a power of the share,
which depends on the scheme more than on the layer: a fit at one rank tells the rest. Layers with
small patches are fitted at all ranks, which takes little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.search.settings import SETTINGS, RankSteps, SearchSettings
from onnx_lowrank.types import Array

LEAST = 1e-3  # relative error: what is less counts as this


def fitted_first(
    schemes: Sequence[Scheme], conv: ConvSpec, settings: SearchSettings = SETTINGS
) -> tuple[Scheme, ...]:
    """Return those of a layer's schemes that are fitted before anything is chosen.

    Parameters
    ----------
    schemes : sequence of Scheme
        The layer's candidates.
    conv : ConvSpec
        The layer; its multiply-adds are known.
    settings : SearchSettings
        At which shares.
    """
    small = conv.in_channels // conv.group * conv.taps <= settings.small_patch
    found = []
    for each in _by_name(schemes).values():
        if small or not each[0].needs_moment:
            found += each
            continue
        steps = settings.rank_steps.get(each[0].name, RankSteps(settings.shares))
        shares = np.log(_shares(each, conv))
        places = {int(np.argmin(np.abs(shares - np.log(share)))) for share in steps.fitted}
        found += [each[place] for place in sorted(places)]
    return tuple(found)


def predicted_errors(
    schemes: Sequence[Scheme],
    conv: ConvSpec,
    known: Mapping[str, float],
    settings: SearchSettings = SETTINGS,
) -> dict[str, float]:
    """Return the relative errors of a layer's schemes, by specification.

    Parameters
    ----------
    schemes : sequence of Scheme
        The layer's candidates.
    conv : ConvSpec
        The layer; its multiply-adds are known.
    known : mapping of str to float
        Errors of fits, by specification.
    settings : SearchSettings
        How the ratio to a closed form goes, where one fit alone is known.

    Returns
    -------
    dict of str to float
        Those in `known` as they are. Schemes of which none was fitted are left out.
    """
    groups = _by_name(schemes)
    curve = _curve(groups, conv, known)
    errors: dict[str, float] = {}
    for each in groups.values():
        made = [scheme for scheme in each if scheme.spec in known]
        if not made:
            continue
        shares = np.log(_shares(made, conv))
        ratios = np.log([max(known[scheme.spec], LEAST) for scheme in made]) - curve(shares)
        order = np.argsort(shares)
        x = np.log(_shares(each, conv))
        ratio = _line(x, shares[order], ratios[order])
        if len(made) == 1:
            steps = settings.rank_steps.get(each[0].name, RankSteps(settings.shares))
            ratio = ratio + steps.slope * (x - shares[0])
        values = np.exp(np.minimum(curve(x) + ratio, 0.0))
        for scheme, value in zip(each, values.tolist(), strict=True):
            errors[scheme.spec] = known.get(scheme.spec, value)
    return errors


class _Curve:
    """Logarithms of errors over logarithms of shares, from some points of it; flat without any."""

    def __init__(self, shares: Array, errors: Array) -> None:
        order = np.argsort(shares)
        self._points = shares[order], errors[order]

    def __call__(self, shares: Array) -> Array:
        return _line(shares, *self._points) if len(self._points[0]) else np.zeros(len(shares))


def _curve(
    groups: Mapping[str, Sequence[Scheme]], conv: ConvSpec, known: Mapping[str, float]
) -> _Curve:
    """Return the curve of the scheme of which all fits are known: of two, the first."""
    for each in groups.values():
        made = [scheme for scheme in each if scheme.spec in known]
        if not each[0].needs_moment and len(made) > 1:
            errors = [max(known[scheme.spec], LEAST) for scheme in made]
            return _Curve(np.log(_shares(made, conv)), np.log(errors))
    return _Curve(np.zeros(0), np.zeros(0))


def _line(x: Array, points: Array, values: Array) -> Array:
    """Interpolate between points, which rise, and go on beyond them with the slope at the end."""
    found = np.interp(x, points, values)
    if len(points) > 1:
        first, last = (
            (values[b] - values[a]) / max(points[b] - points[a], 1e-9)
            for a, b in ((0, 1), (-2, -1))
        )
        found = found + first * np.minimum(x - points[0], 0) + last * np.maximum(x - points[-1], 0)
    return np.asarray(found)


def _by_name(schemes: Sequence[Scheme]) -> dict[str, list[Scheme]]:
    groups: dict[str, list[Scheme]] = {}
    for scheme in schemes:
        groups.setdefault(scheme.name, []).append(scheme)
    return groups


def _shares(schemes: Sequence[Scheme], conv: ConvSpec) -> Array:
    assert conv.macs is not None
    return np.array([(scheme.macs(conv) or 1) / conv.macs for scheme in schemes])
