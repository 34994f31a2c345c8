"""Low-rank schemes: weights in, factors out; no ONNX, no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError, suggest
from onnx_lowrank.registry import Registry
from onnx_lowrank.schemes.base import Factors, Fit, Rank, Scheme, Weight, lacks, spelled
from onnx_lowrank.schemes.bicluster import BiclusterOuter, BiclusterSVD
from onnx_lowrank.schemes.channel import Channel, MatrixSVD
from onnx_lowrank.schemes.dense import Dense
from onnx_lowrank.schemes.monochromatic import Monochromatic
from onnx_lowrank.schemes.one_block import CP, Tucker2
from onnx_lowrank.schemes.spatial import Spatial
from onnx_lowrank.schemes.targets import KINDS, Target

SCHEMES: Registry[type[Scheme]] = Registry(
    (
        Monochromatic,
        BiclusterSVD,
        BiclusterOuter,
        Tucker2,
        CP,
        Spatial,
        Channel,
        MatrixSVD,
    ),
    lacks=lacks,
)
"""All schemes that approximate; adding one takes its file, a line here, and a test.

`Dense`, the layer as it is, is none of them; a specification may name it all the same.
"""

__all__ = ["SCHEMES", "Dense", "Factors", "Fit", "Rank", "Scheme", "SchemeSpec", "Target"]


@dataclass(frozen=True)
class SchemeSpec:
    """A scheme and its ranks as a user writes them, for any layer.

    Attributes
    ----------
    scheme : type
        The scheme.
    ranks : mapping
        Counts or percentages, in the order of the scheme's ranks.
    target : Target or None
        What the ranks that are not given should achieve.
    """

    scheme: type[Scheme]
    ranks: Mapping[str, Rank]
    target: Target | None = None

    @classmethod
    def parse(cls, text: str) -> SchemeSpec:
        """Read a specification: ``"mono:C=6"``, ``"tucker2:R1=50%,R2=50%"``, ``"cp:macs=0.25"``.

        ``"dense"`` is the layer as it is.

        Raises
        ------
        SchemeError
            If the scheme is unknown, or its ranks are not exactly those it takes.
        """
        name, _, listed = text.partition(":")
        known = {scheme.name: scheme for scheme in (*SCHEMES, Dense)}
        if name not in known:
            hint = suggest(name, known) or f"; choose one of {', '.join(known)}"
            raise SchemeError(f"there is no scheme '{name}'{hint}")
        scheme = known[name]
        wanted = scheme.rank_names()
        pairs = [item.partition("=") for item in listed.split(",") if item]
        values = {key.strip(): value.strip() for key, _, value in pairs}
        targets = [kind for kind in KINDS if kind in values]
        given = [rank for rank in wanted if rank in values]
        complete = (
            given == list(wanted)
            if not targets
            else len(targets) == 1 and set(scheme.clusters) <= set(given) < set(wanted)
        )
        if len(values) != len(pairs) or len(values) != len(given) + len(targets) or not complete:
            if not wanted:
                raise SchemeError(f"cannot read '{text}': {name} has no ranks; write {name}")
            form = ",".join(f"{rank}=" for rank in wanted)
            fixed = "".join(f"{rank}=," for rank in scheme.clusters)
            raise SchemeError(
                f"cannot read the ranks of '{text}'; write {name}:{form} or {name}:{fixed}macs="
            )
        ranks = {rank: Rank.parse(values[rank]) for rank in given}
        target = Target.parse(targets[0], values[targets[0]]) if targets else None
        return cls(scheme, ranks, target)

    def resolve(self, conv: ConvSpec, weight: Callable[[], Weight] | None = None) -> Scheme:
        """Return the scheme with its ranks for `conv`.

        Parameters
        ----------
        conv : ConvSpec
            The layer.
        weight : callable, optional
            Gives its weight, ``(F, C / group, *kernel)``; called for ranks by energy alone.

        Raises
        ------
        SchemeError
            If the scheme does not apply, or no ranks are as asked for.
        """
        if self.target is None:
            return self.scheme.resolve(self.ranks, conv)
        return self.target.resolve(self.scheme, self.ranks, conv, weight)

    def __str__(self) -> str:
        parts = [f"{name}={rank}" for name, rank in self.ranks.items()]
        return spelled(self.scheme.name, [*parts, *([str(self.target)] if self.target else [])])
