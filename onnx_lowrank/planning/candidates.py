"""What a layer could be replaced by: every scheme at several ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.schemes import SCHEMES, Rank, Scheme

# Shares of a layer's multiply-adds: each step cuts about a quarter.
SHARES: tuple[float, ...] = (0.75, 0.56, 0.42, 0.32, 0.24, 0.18, 0.13, 0.1, 0.07)
# Ranks come in the channel blocks of onnxruntime's convolutions (16 with AVX-512, 8 with AVX2),
# which pad what does not fill one.
BLOCK = 16
SMALL_BLOCK = 8
# A colour transform pays where there are few input channels to mix.
MOST_COLOURS = 16
# Per scheme, the proportions of ranks to try, by how far a rank's share is from the others', and
# the shares of multiply-adds for each. Outputs of Tucker-2 need the larger rank: at equal
# operations R2 > R1 had the lower error on every layer of VGG-16. CP takes ten times as long to fit
# as the others.
_Proportions = tuple[Mapping[str, float], slice]
_PROPORTIONS: dict[str, tuple[_Proportions, ...]] = {
    "cp": (({}, slice(3, None, 2)),),
    "spatial": (({}, slice(0, 7)),),
    "tucker2": (
        ({"R1": 0.75, "R2": 1.25}, slice(1, 8)),
        ({"R1": 0.55, "R2": 1.45}, slice(1, 8, 2)),
    ),
}
_EVERY: tuple[_Proportions, ...] = (({}, slice(None)),)
# At equal operations Tucker-2 had a lower error than blocks of it on nearly every layer of VGG-16,
# and grouped convolutions run slower; blocks are left to those who ask for them.
_LEFT_OUT = ("bicluster-svd", "bicluster-outer")


def candidates(conv: ConvSpec) -> tuple[Scheme, ...]:
    """Return the schemes that a search tries on a layer, all with fewer multiply-adds than it has.

    Parameters
    ----------
    conv : ConvSpec
        The layer; none for one whose multiply-adds are unknown.
    """
    if conv.macs is None:
        return ()
    found: dict[str, Scheme] = {}
    for scheme in SCHEMES:
        if scheme.refusal(conv) is not None or scheme.name in _LEFT_OUT:
            continue
        if scheme.name == "mono" and conv.in_channels > MOST_COLOURS:
            continue
        for proportions, steps in _PROPORTIONS.get(scheme.name, _EVERY):
            for share in SHARES[steps]:
                for each in _at_share(scheme, conv, proportions, share):
                    if (each.macs(conv) or conv.macs) < conv.macs:
                        found.setdefault(each.spec, each)
    return tuple(found.values())


def _at_share(
    scheme: type[Scheme], conv: ConvSpec, proportions: Mapping[str, float], share: float
) -> Iterator[Scheme]:
    """Yield the largest ranks within a share of the layer's multiply-adds, if there are any."""
    assert conv.macs is not None
    most = share * conv.macs
    low, high = 0.0, 1.0
    for _ in range(12):  # to 1/4096 of the limits: finer than one rank
        middle = (low + high) / 2
        macs = _at_scale(scheme, conv, proportions, middle).macs(conv)
        if macs is not None and macs <= most:
            low = middle
        else:
            high = middle
    if low > 0:
        yield _in_blocks(_at_scale(scheme, conv, proportions, low), conv)


def _at_scale(
    scheme: type[Scheme], conv: ConvSpec, proportions: Mapping[str, float], scale: float
) -> Scheme:
    ranks = {
        name: Rank(max(min(100 * scale * proportions.get(name, 1), 100), 1e-9), percent=True)
        for name in scheme.rank_names()
    }
    return scheme.resolve(ranks, conv)


def _in_blocks(scheme: Scheme, conv: ConvSpec) -> Scheme:
    """Round ranks to whole channel blocks where the scheme takes any rank."""
    ranks = {}
    for name, value in asdict(scheme).items():
        block = BLOCK if value >= 2 * BLOCK else SMALL_BLOCK
        ranks[name] = Rank(max(round(value / block) * block, min(value, block)))
    try:
        return type(scheme).resolve(ranks, conv)
    except SchemeError:  # clusters must divide, or the limit is no whole number of blocks
        return scheme
