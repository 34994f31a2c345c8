"""What a layer could be replaced by: every scheme at several ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.schemes import SCHEMES, Rank, Scheme
from onnx_lowrank.search.settings import SETTINGS, RankSteps, SearchSettings

_HALVINGS = 12  # of the limits, to 1/4096 of them: finer than one rank


def candidate_schemes(conv: ConvSpec, settings: SearchSettings = SETTINGS) -> tuple[Scheme, ...]:
    """Return the schemes that a search tries on a layer, all with fewer multiply-adds than it has.

    Parameters
    ----------
    conv : ConvSpec
        The layer; none for one whose multiply-adds are unknown.
    settings : SearchSettings
        Which schemes, at which ranks.
    """
    if conv.macs is None:
        return ()
    found: dict[str, Scheme] = {}
    for scheme in SCHEMES:
        if scheme.refusal(conv) is not None or scheme.name in settings.left_out:
            continue
        if scheme.name == "mono" and conv.in_channels > settings.most_colours:
            continue
        steps = settings.rank_steps.get(scheme.name, RankSteps(settings.shares))
        for share in steps.shares:
            each = _at_share(scheme, conv, steps.proportions, share)
            if each is not None:
                each = _in_blocks(each, conv, settings.channel_blocks)
                if (each.macs(conv) or conv.macs) < conv.macs:
                    found.setdefault(each.spec, each)
    return tuple(found.values())


def _at_share(
    scheme: type[Scheme], conv: ConvSpec, proportions: Mapping[str, float], share: float
) -> Scheme | None:
    """Return the largest ranks within a share of the layer's multiply-adds, if there are any."""
    assert conv.macs is not None
    most = share * conv.macs
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        macs = _at_scale(scheme, conv, proportions, middle).macs(conv)
        if macs is not None and macs <= most:
            low = middle
        else:
            high = middle
    return _at_scale(scheme, conv, proportions, low) if low > 0 else None


def _at_scale(
    scheme: type[Scheme], conv: ConvSpec, proportions: Mapping[str, float], scale: float
) -> Scheme:
    ranks = {
        name: Rank(max(min(100 * scale * proportions.get(name, 1), 100), 1e-9), percent=True)
        for name in scheme.rank_names()
    }
    return scheme.resolve(ranks, conv)


def _in_blocks(scheme: Scheme, conv: ConvSpec, blocks: tuple[int, int]) -> Scheme:
    """Round ranks to whole channel blocks where the scheme takes any rank."""
    small, large = blocks
    ranks = {}
    for name, value in asdict(scheme).items():
        block = large if value >= 2 * large else small
        ranks[name] = Rank(max(round(value / block) * block, min(value, block)))
    try:
        return type(scheme).resolve(ranks, conv)
    except SchemeError:  # clusters must divide, or the limit is no whole number of blocks
        return scheme
