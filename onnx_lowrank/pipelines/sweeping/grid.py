"""The grid of a sweep: layers x schemes with their ranks x metrics."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError
from onnx_lowrank.planning.plan import PlannableLayer, Rule, no_gain
from onnx_lowrank.schemes import Scheme, SchemeSpec
from onnx_lowrank.schemes.base import Weight


@dataclass(frozen=True)
class Point:
    """One fit: a layer, a scheme with its ranks, and the metric that is minimised."""

    layer: str
    conv: ConvSpec
    scheme: Scheme
    metric: str


@dataclass(frozen=True)
class Skipped:
    """What is not part of the grid, and why in a sentence; no scheme where none applies."""

    layer: str
    scheme: str | None
    reason: str


def expand_rules(texts: Iterable[str]) -> tuple[Rule, ...]:
    """Read schemes to try: ``"mono:C=4/6/8"`` on all layers, ``"conv1=mono:C=6"`` on some.

    Values may be alternatives; several of them make a grid.

    Raises
    ------
    SchemeError
        A scheme is unknown or its ranks are malformed.
    """
    found: dict[str, Rule] = {}
    for text in texts:
        match = re.fullmatch(r"(?:(.+?)=)?([A-Za-z][\w-]*)(:.*)?", text, re.DOTALL)
        pattern, name, listed = match.groups() if match else (None, text, None)
        items = []
        for item in (listed or ":")[1:].split(","):
            key, equals, values = item.partition("=")
            items.append([f"{key}{equals}{value}" for value in values.split("/")])
        for chosen in itertools.product(*items):
            rule = Rule(pattern or "*", SchemeSpec.parse(f"{name}:{','.join(chosen)}"))
            found.setdefault(str(rule), rule)
    return tuple(found.values())


def select_layers(
    layers: Sequence[PlannableLayer], patterns: Sequence[str]
) -> tuple[PlannableLayer, ...]:
    """Return the layers that any of the names or globs matches, in graph order.

    Raises
    ------
    PlanError
        A pattern matches no layer.
    """
    for pattern in patterns:
        if not any(Rule(pattern, None).matches(layer.name) for layer in layers):
            raise PlanError(
                f"no layer is called '{pattern}'; the command 'inspect' lists the layers"
            )
    rules = [Rule(pattern, None) for pattern in patterns]
    return tuple(layer for layer in layers if any(rule.matches(layer.name) for rule in rules))


def make_grid(
    layers: Sequence[PlannableLayer],
    rules: Sequence[Rule],
    metrics: Sequence[str],
    weight: Callable[[str], Weight],
) -> tuple[tuple[Point, ...], tuple[Skipped, ...]]:
    """Return the points, layer by layer, and what is left out.

    `weight` gives a layer's weight by its name, for ranks by energy. Left out is a scheme that

    1. does not apply to the layer, or whose ranks do not fit it;
    2. would not reduce its multiply-adds (its parameters, where sizes are unknown);
    3. comes to the same ranks as one before it in the list, without a word.
    """
    points: list[Point] = []
    skipped: list[Skipped] = []
    for layer in layers:
        conv = layer.spec
        if layer.reason is not None or conv is None:
            skipped.append(Skipped(layer.name, None, layer.reason or "its shape cannot be read"))
            continue
        schemes: dict[Scheme, None] = {}
        for spec in (rule.scheme for rule in rules if rule.matches(layer.name)):
            if spec is None:
                continue
            try:
                scheme = spec.resolve(conv, partial(weight, layer.name))  # 1
                if reason := no_gain(scheme, conv):  # 2
                    raise SchemeError(reason)
            except SchemeError as error:
                skipped.append(Skipped(layer.name, str(spec), str(error)))
                continue
            schemes[scheme] = None  # 3
        points += [Point(layer.name, conv, s, metric) for s in schemes for metric in metrics]
    return tuple(points), tuple(skipped)
