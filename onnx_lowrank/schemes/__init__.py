"""Low-rank schemes: weights in, factors out; no ONNX, no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError, suggest
from onnx_lowrank.schemes.base import Factors, Fit, Rank, Scheme
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD
from onnx_lowrank.schemes.channel import Channel, MatrixSVD
from onnx_lowrank.schemes.monochromatic import Monochromatic
from onnx_lowrank.schemes.one_block import CP, Tucker2
from onnx_lowrank.schemes.spatial import Spatial

SCHEMES: tuple[type[Scheme], ...] = (
    Monochromatic,
    BiclusterSVD,
    BiclusterOuter,
    Tucker2,
    CP,
    Spatial,
    Channel,
    MatrixSVD,
)
"""All schemes; adding one takes its file, a line here, and a test."""

__all__ = ["SCHEMES", "Factors", "Fit", "Rank", "Scheme", "SchemeSpec"]


@dataclass(frozen=True)
class SchemeSpec:
    """A scheme and its ranks as a user writes them, counts or percentages, for any layer."""

    scheme: type[Scheme]
    ranks: Mapping[str, Rank]

    @classmethod
    def parse(cls, text: str) -> SchemeSpec:
        """Read a specification such as ``"mono:C=6"``.

        Raises
        ------
        SchemeError
            If the scheme is unknown, or its ranks are not exactly those it takes.
        """
        name, _, listed = text.partition(":")
        known = {scheme.name: scheme for scheme in SCHEMES}
        if name not in known:
            hint = suggest(name, known) or f"; choose one of {', '.join(known)}"
            raise SchemeError(f"there is no scheme '{name}'{hint}")
        wanted = known[name].rank_names()
        pairs = [item.partition("=") for item in listed.split(",") if item]
        ranks = {key.strip(): value.strip() for key, _, value in pairs}
        if len(ranks) != len(pairs) or set(ranks) != set(wanted):
            form = ",".join(f"{rank}=" for rank in wanted)
            raise SchemeError(f"cannot read the ranks of '{text}'; write {name}:{form}")
        return cls(known[name], {rank: Rank.parse(ranks[rank]) for rank in wanted})

    def resolve(self, conv: ConvSpec) -> Scheme:
        """Return the scheme with its ranks for `conv`; raise SchemeError if it does not apply."""
        return self.scheme.resolve(self.ranks, conv)

    def __str__(self) -> str:
        return f"{self.scheme.name}:" + ",".join(f"{k}={v}" for k, v in self.ranks.items())
