"""Latencies of another machine as a source of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnx_lowrank.errors import PlanError
from onnx_lowrank.planning.latency import SavedLatencies, Timed
from onnx_lowrank.search.latency_source import ELSEWHERE, Group, InNetwork, Sizes, Timings
from onnx_lowrank.types import Feeds, Progress


@dataclass(frozen=True, eq=False)
class MeasuredElsewhere:
    """Latencies of another machine; nothing is timed here.

    Attributes
    ----------
    table : SavedLatencies
        What was measured there.
    """

    table: SavedLatencies

    @property
    def batch(self) -> int | None:
        """Samples at once, as there."""
        return self.table.batch

    def roughly(self, groups: Sequence[Group], *, progress: Progress) -> list[Timings]:
        """Return what the table says of the candidates that are in it, and pay.

        Raises
        ------
        PlanError
            The table lacks a layer.
        """
        del progress
        return [self._layer(group) for group in groups]

    def precisely(self, group: Group, places: Sequence[int]) -> dict[int, Timed]:
        """Return nothing: what `roughly` gives was timed precisely there."""
        del group, places
        return {}

    def _layer(self, group: Group) -> Timings:
        known, layer = self.table.known, group.key(ELSEWHERE)
        if layer not in known:
            raise PlanError(
                f"the latencies of {self.table.name} lack the layer "
                f"'{group.dense.graph.node[0].name}': they are of another model, input shape or "
                "opset; make them anew from this model"
            )
        keys = [group.key(ELSEWHERE, group.build(place)) for place in range(len(group.kinds))]
        timed = {place: known[key] for place, key in enumerate(keys) if key in known}
        return known[layer], {place: each for place, each in timed.items() if each.pays}

    def in_network(
        self,
        networks: Sequence[onnx.ModelProto],
        feeds: Feeds,
        layers: Sequence[tuple[onnx.ModelProto, Timed]],
        sizes: Sequence[Sizes],
    ) -> InNetwork:
        """Return the table's latency of the whole model, and of the layers as models show it."""
        del networks, feeds, sizes
        original = self.table.whole.seconds
        seconds = tuple(self.table.scale * timed.seconds for _, timed in layers)
        return InNetwork(original, original, seconds, ((False, False),) * len(seconds))

    def models(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Feeds,
        predicted: Sequence[float],
        *,
        precisely: bool,
    ) -> list[Timed]:
        """Return what was predicted, with the interval that the table's whole models suggest."""
        del models, feeds, precisely
        return [self.table.forecast(ratio) for ratio in predicted]
