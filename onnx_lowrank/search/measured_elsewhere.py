"""Latencies of another machine as a source of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    def candidates(self, groups: Sequence[Group], *, progress: Progress) -> Timings:
        """Return what the table says, savings scaled to those of models.

        Candidates that are not in the table are left out.

        Raises
        ------
        PlanError
            The table lacks a layer.
        """
        del progress
        return [self._layer(group) for group in groups]

    def _layer(self, group: Group) -> tuple[Timed, dict[int, Timed]]:
        table = self.table
        layer, *keys = group.keys(ELSEWHERE)
        if layer not in table.known:
            raise PlanError(
                f"the latencies of {table.name} lack the layer "
                f"'{group.dense.graph.node[0].name}': they are of another model, input shape or "
                "opset; make them anew from this model"
            )
        dense = table.known[layer]
        found = {}
        for place, key in enumerate(keys):
            if (timed := table.known.get(key)) is not None:
                saved = table.scale * (dense.seconds - timed.seconds)
                found[place] = replace(timed, seconds=dense.seconds - saved)
        return dense, found

    def in_network(
        self,
        networks: Sequence[onnx.ModelProto],
        feeds: Feeds,
        layers: Sequence[tuple[onnx.ModelProto, Timed]],
        sizes: Sequence[Sizes],
    ) -> InNetwork:
        """Return the table's latency of the whole model, and the layers' own."""
        del networks, feeds, sizes
        original = self.table.whole.seconds
        seconds = tuple(timed.seconds for _, timed in layers)
        return InNetwork(original, original, seconds, ((False, False),) * len(seconds))

    def models(
        self, models: Sequence[onnx.ModelProto], feeds: Feeds, predicted: Sequence[float]
    ) -> list[Timed]:
        """Return what was predicted, with the interval that the table's whole models suggest."""
        del models, feeds
        return [self.table.forecast(ratio) for ratio in predicted]
