"""The forms that layers can take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError, suggest
from onnx_lowrank.graph.layers import Layer
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.planning.plan import Plan
from onnx_lowrank.registry import Registry
from onnx_lowrank.rewriting.form import Bias, Form
from onnx_lowrank.rewriting.lowering import portable, standard
from onnx_lowrank.rewriting.passes.base import Pass
from onnx_lowrank.rewriting.passes.fuse_activation import FuseActivationPass
from onnx_lowrank.rewriting.passes.portable_lrn import PortableLrnPass
from onnx_lowrank.schemes.base import Factors, Scheme
from onnx_lowrank.schemes.dense import Dense


class StandardForm:
    """Standard ops alone, chains of Conv and MatMul; every structure has them."""

    name = "standard"
    plain = False
    kernels = False

    def refusal(self, structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any]) -> str | None:
        """Return why a structure has no chain of standard ops."""
        del conv, dtype
        return standard.refusal(structure)

    def lower(
        self, factors: Factors, conv: ConvSpec, bias: Bias | None, builder: SubgraphBuilder
    ) -> None:
        """Build the chain."""
        standard.lower(factors, conv, bias, builder)

    def passes(self) -> Sequence[Pass]:
        """Return none."""
        return ()


class PortableForm:
    """One node of this package's ops, whose body is standard ops; with it LRN, and activations."""

    name = "portable"
    plain = True
    kernels = True

    def refusal(self, structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any]) -> str | None:
        """Return why there is no node, or none that kernels serve."""
        return portable.refusal(structure, conv, dtype)

    def lower(
        self, factors: Factors, conv: ConvSpec, bias: Bias | None, builder: SubgraphBuilder
    ) -> None:
        """Build the node."""
        portable.lower(factors, conv, bias, builder)

    def passes(self) -> Sequence[Pass]:
        """Return those that let nodes of this package do more."""
        return PortableLrnPass(), FuseActivationPass()


AUTO = "auto"
STANDARD = StandardForm()
PORTABLE = PortableForm()
FORMS: Registry[Form] = Registry((STANDARD, PORTABLE))
"""All forms; adding one takes its file, a line here, and a test."""


def find_form(name: str, *, also: Sequence[str] = ()) -> Form:
    """Return the form of a name; raise PlanError, which names `also` too, where there is none."""
    if name not in FORMS.names:
        known = (*FORMS.names, *also)
        hint = suggest(name, known) or f"; choose one of {', '.join(known)}"
        raise PlanError(f"there is no form '{name}'{hint}")
    return FORMS[name]


def forms_for(
    structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any], forms: Iterable[Form]
) -> tuple[Form, ...]:
    """Return those of some forms that serve a structure in the place of a layer.

    Where none does, standard ops do.
    """
    found = [form for form in forms if form.refusal(structure, conv, dtype) is None]
    return tuple(found) or (STANDARD,)


class Runtime(Protocol):
    """What runs a model, as far as forms depend on it."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    @property
    def functions(self) -> bool:
        """Whether it runs model-local functions, which nodes of the package are."""
        ...

    @property
    def kernels(self) -> bool:
        """Whether the package's kernels are registered there."""
        ...


def allowed_forms(lowering: str, runtime: Runtime) -> tuple[Form, ...]:
    """Return the forms that candidates of a search may have.

    Parameters
    ----------
    lowering : str
        The name of one; or ``auto`` for all that can be fast.
    runtime : Runtime
        Where the model will run.

    Raises
    ------
    PlanError
        There is no such form, or the runtime does not run it.
    """
    if lowering == AUTO:
        kernels = runtime.kernels
        return tuple(form for form in FORMS if kernels or not form.kernels)
    return (_runnable(find_form(lowering, also=(AUTO,)), runtime),)


def default_form(lowering: str, runtime: Runtime) -> Form:
    """Return the form of layers of a plan that name none.

    Parameters
    ----------
    lowering, runtime
        As of `allowed_forms`; ``auto`` is the portable form where the kernels are registered.

    Raises
    ------
    PlanError
        As of `allowed_forms`.
    """
    if lowering == AUTO:
        return PORTABLE if runtime.kernels else STANDARD
    return allowed_forms(lowering, runtime)[0]


def plan_forms(named: Mapping[str, str | None], default: Form, runtime: Runtime) -> dict[str, Form]:
    """Return the forms of a plan's layers, `default` for those that name none, by layer name.

    Raises
    ------
    PlanError
        There is no such form, or the runtime does not run it.
    """
    return {
        layer: default if name is None else _runnable(find_form(name), runtime)
        for layer, name in named.items()
    }


def _runnable(form: Form, runtime: Runtime) -> Form:
    """Return a form that the runtime runs; raise PlanError for another one."""
    if form.kernels and not runtime.functions:
        raise PlanError(
            f"the engine {runtime.name} does not run {form.name} nodes; take --lowering standard, "
            f"and leave out @{form.name}"
        )
    return form


def form_refusal(
    form: Form, scheme: type[Scheme], conv: ConvSpec, dtype: np.dtype[Any]
) -> str | None:
    """Return in a clause why a form serves no structure of a scheme for a layer, or None."""
    reasons = [form.refusal(structure, conv, dtype) for structure in scheme.structures]
    return None if None in reasons else reasons[0]


def layer_forms(
    schemes: Iterable[type[Scheme]], conv: ConvSpec, dtype: np.dtype[Any]
) -> tuple[str, ...]:
    """Return the names of the forms that a layer can have, as it is or by one of some schemes."""
    possible: tuple[type[Scheme], ...] = (Dense, *schemes)
    return tuple(
        form.name
        for form in FORMS
        if any(form_refusal(form, scheme, conv, dtype) is None for scheme in possible)
    )


def check_written(schemes: Iterable[type[Scheme]]) -> None:
    """Raise SchemeError if a structure of some schemes has no chain of standard ops.

    They stand in wherever no other form serves, and so every structure needs them. This is asked
    before anything is fitted.
    """
    for scheme in schemes:
        for structure in scheme.structures:
            if (reason := standard.refusal(structure)) is not None:
                raise SchemeError(
                    f"{scheme.name} cannot be written: {reason}; "
                    f"register a function for {structure.__name__} by {standard.__name__}.lower"
                )


def checked_forms(layers: Sequence[Layer], plan: Plan) -> Plan:
    """Return a plan of which every form serves its layer; under a glob, others are kept.

    Raises
    ------
    PlanError
        There is no such form, or a layer that a rule names exactly cannot take it.
    SchemeError
        As of `check_written`.
    """
    check_written(dict.fromkeys(type(scheme) for scheme in plan.chosen.values()))
    reasons = {}
    for layer, decision in zip(layers, plan.decisions, strict=True):
        if decision.form is None or decision.scheme is None or layer.spec is None:
            continue
        form, scheme = find_form(decision.form), type(decision.scheme)
        if (reason := form_refusal(form, scheme, layer.spec, layer.dtype)) is None:
            continue
        if decision.named:
            raise PlanError(f"layer '{layer.name}' cannot take {decision.spec}: {reason}")
        reasons[layer.name] = reason
    return plan.keeping(reasons)
