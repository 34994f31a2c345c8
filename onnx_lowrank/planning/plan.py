"""The plan: for every layer a scheme, or the reason why it is kept. A plan is data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError, suggest
from onnx_lowrank.json_input import read_json
from onnx_lowrank.schemes import SCHEMES, Scheme, SchemeSpec
from onnx_lowrank.schemes.base import Weight
from onnx_lowrank.schemes.dense import Dense

KEEP = "keep"
_REMEDY = 'write {"version": 1, "layers": [{"name": ..., "scheme": ...}]}'
KEPT = "kept as asked"

Weights = Callable[[str], Weight]


class PlannableLayer(Protocol):
    """What planning needs to know of a layer."""

    @property
    def name(self) -> str:
        """The name a user calls the layer by."""
        ...

    @property
    def spec(self) -> ConvSpec | None:
        """Attributes and shapes, or None where they cannot be read."""
        ...

    @property
    def reason(self) -> str | None:
        """Why the layer cannot be approximated at all, or None."""
        ...


@dataclass(frozen=True)
class Rule:
    """What is asked for the layers of a name or glob.

    Attributes
    ----------
    pattern : str
        The name or glob.
    scheme : SchemeSpec or None
        The scheme; None keeps the layer as it is.
    form : str or None
        Name of the form in which it is written; None leaves that open.
    """

    pattern: str
    scheme: SchemeSpec | None
    form: str | None = None

    @classmethod
    def of(cls, pattern: str, text: str | None) -> Rule:
        """Read what follows the name: ``"mono:C=6"``, ``"cp:R=400@portable"``, ``"keep"``.

        Raises
        ------
        SchemeError
            If the scheme is unknown or its ranks are malformed.
        """
        if text is None or text == KEEP:
            return cls(pattern, None)
        spec, _, form = text.partition("@")
        return cls(pattern, SchemeSpec.parse(spec), form or None)

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``"NAME=SCHEME[@FORM]"``, e.g. ``"conv1=mono:C=6"`` or ``"fc*=keep"``.

        Raises
        ------
        PlanError
            If the text has not that form.
        SchemeError
            If the scheme is unknown or its ranks are malformed.
        """
        match = re.fullmatch(r"(.+?)=([A-Za-z][\w-]*(?::.*?)?(?:@[\w-]+)?)", text, re.DOTALL)
        if not match:
            raise PlanError(
                f"cannot read the layer choice '{text}'; "
                "write NAME=SCHEME, such as 'conv1=mono:C=6'"
            )
        return cls.of(match[1], match[2])

    def matches(self, name: str) -> bool:
        """Whether the rule speaks of the layer called `name`."""
        return name == self.pattern or fnmatchcase(name, self.pattern)

    def __str__(self) -> str:
        return f"{self.pattern}={self.scheme or KEEP}{_suffix(self.form)}"


@dataclass(frozen=True)
class Decision:
    """What becomes of one layer: a scheme with its ranks, or a sentence saying why it is kept.

    Attributes
    ----------
    layer : str
        The layer.
    scheme : Scheme or None
        What replaces it.
    reason : str or None
        Why it is kept.
    form : str or None
        Name of the form in which it is written; None leaves that open.
    named : bool
        Whether a rule names it exactly: then a failure of its fit is an error. Otherwise it is kept
        with the reason.
    """

    layer: str
    scheme: Scheme | None
    reason: str | None = None
    form: str | None = None
    named: bool = field(default=False, compare=False)

    @property
    def spec(self) -> str | None:
        """The specification a user would type, e.g. ``"cp:R=400@portable"``; None if kept."""
        return None if self.scheme is None else f"{self.scheme.spec}{_suffix(self.form)}"


@dataclass(frozen=True)
class Plan:
    """One decision per layer, in graph order."""

    decisions: tuple[Decision, ...]

    @property
    def chosen(self) -> dict[str, Scheme]:
        """The schemes of the layers that are replaced, by layer name."""
        return {d.layer: d.scheme for d in self.decisions if d.scheme is not None}

    @property
    def forms(self) -> dict[str, str | None]:
        """The names of their forms, by layer name; None where that is open."""
        return {d.layer: d.form for d in self.decisions if d.scheme is not None}

    def keeping(self, reasons: Mapping[str, str]) -> Plan:
        """Return the plan in which some layers, by name, are kept for a reason."""
        return Plan(
            tuple(
                Decision(d.layer, None, reasons[d.layer]) if d.layer in reasons else d
                for d in self.decisions
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data; `read_plan` reads it back."""
        layers = [{"name": d.layer, "scheme": d.spec, "reason": d.reason} for d in self.decisions]
        return {"version": 1, "layers": layers}


def read_plan(path: Path) -> tuple[Rule, ...]:
    """Read the rules of a saved or hand-written plan from a file; names may be globs.

    Raises
    ------
    PlanError
        The file cannot be read, or is no plan.
    SchemeError
        A scheme in it is unknown or its ranks are malformed.
    """
    data = read_json(path, "plan", what="the plan", remedy=_REMEDY, error=PlanError)
    return tuple(Rule.of(entry["name"], entry["scheme"]) for entry in data["layers"])


def decide(
    layers: Sequence[PlannableLayer], rules: Iterable[Rule], *, weights: Weights | None = None
) -> Plan:
    """Resolve rules into one decision per layer.

    A rule that names a layer exactly goes before globs; among globs the first that matches decides.
    Under a glob, a layer to which the scheme does not apply, or whose operations it would not
    reduce, is kept with the reason. `weights` gives the weight of a layer by its name, for ranks
    that are a share of its energy; the plan has the counts.

    Raises
    ------
    PlanError
        If a rule matches no layer, or names a layer exactly that its scheme does not fit.
    """
    rules = tuple(rules)
    check_rules([layer.name for layer in layers], rules)
    return Plan(tuple(_decide_layer(layer, rules, weights) for layer in layers))


def check_rules(names: Sequence[str], rules: Iterable[Rule]) -> None:
    """Raise PlanError if a rule matches none of the layers' names."""
    for rule in rules:
        if not any(rule.matches(name) for name in names):
            raise PlanError(
                f"no layer is called '{rule.pattern}'"
                + (suggest(rule.pattern, names) or "; the command 'inspect' lists the layers")
            )


def kept_as_asked(names: Sequence[str], patterns: Iterable[str]) -> dict[str, str]:
    """Return why layers are kept that a user left out of a search, by name.

    Parameters
    ----------
    names : sequence of str
        All layers.
    patterns : iterable of str
        Names or globs of those to keep.

    Raises
    ------
    PlanError
        A pattern matches no layer.
    """
    rules = [Rule(pattern, None) for pattern in patterns]
    check_rules(names, rules)
    return {name: KEPT for name in names if any(rule.matches(name) for rule in rules)}


def _decide_layer(
    layer: PlannableLayer, rules: tuple[Rule, ...], weights: Weights | None = None
) -> Decision:
    exact = [rule for rule in rules if rule.pattern == layer.name]
    globs = [rule for rule in rules if rule.matches(layer.name)]
    if not globs:
        return Decision(layer.name, None, "no rule of the plan speaks of it")
    rule = (exact or globs)[0]
    if rule.scheme is None:
        return Decision(layer.name, None, "the plan keeps it")
    try:
        scheme = _resolve(layer, rule.scheme, weights)
        if isinstance(scheme, Dense):
            if rule.form is None:
                return Decision(layer.name, None, "the plan keeps it")
        elif not exact and (reason := no_gain(scheme, layer.spec)):
            raise SchemeError(reason)
    except SchemeError as error:
        if exact:
            raise PlanError(f"layer '{layer.name}' cannot take {rule.scheme}: {error}") from None
        return Decision(layer.name, None, str(error))
    return Decision(layer.name, scheme, form=rule.form, named=bool(exact))


def _suffix(form: str | None) -> str:
    return "" if form is None else f"@{form}"


def _resolve(layer: PlannableLayer, spec: SchemeSpec, weights: Weights | None) -> Scheme:
    if layer.reason is not None or layer.spec is None:
        raise SchemeError(layer.reason or "its shape cannot be read")
    try:
        return spec.resolve(layer.spec, partial(weights, layer.name) if weights else None)
    except MemoryError:
        raise SchemeError("its weight does not fit into memory") from None


def no_gain(scheme: Scheme, conv: ConvSpec | None) -> str | None:
    """Return a sentence if `scheme` does not reduce the layer's operations, else None.

    Where sizes are unknown, parameters are compared.
    """
    if conv is None:
        return None
    new, old, what = scheme.macs(conv), conv.macs, "multiply-adds"
    if new is None or old is None:
        new, old, what = scheme.params(conv), conv.params, "parameters"
    if new < old:
        return None
    return f"{scheme.spec} would not reduce its {what}: {new:,} against {old:,}"


def default_plan(layers: Sequence[PlannableLayer]) -> Plan:
    """Return the plan used when none is given: the published schemes at moderate ranks.

    Colour layers (up to four input channels) become monochromatic with about one colour for eight
    outputs; other Convs are biclustered 2 x 2 at half ranks. Layers that would not gain are kept.
    """
    colour = SchemeSpec.parse("mono:C=12%")
    deep = SchemeSpec.parse("bicluster-svd:G=2,H=2,K1=50%,K2=50%")

    def rule(layer: PlannableLayer) -> Rule:
        shallow = layer.spec is not None and layer.spec.in_channels <= 4
        return Rule("*", colour if shallow else deep)

    return Plan(tuple(_decide_layer(layer, (rule(layer),)) for layer in layers))


def applicable(layer: PlannableLayer) -> tuple[tuple[str, ...], str | None]:
    """Return the names of the schemes that `layer` can take, and why there is none if so."""
    if layer.reason is not None or layer.spec is None:
        return (), layer.reason or "its shape cannot be read"
    refusals = {scheme.name: scheme.refusal(layer.spec) for scheme in SCHEMES}
    names = tuple(name for name, refusal in refusals.items() if refusal is None)
    # The schemes mostly refuse a layer for the same reason: it is said once.
    reasons = dict.fromkeys(reason for reason in refusals.values() if reason)
    return names, None if names else "; ".join(reasons)
