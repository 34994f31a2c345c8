"""What every scheme promises, as functions of a scheme and a layer.

`cases` gives all that is to be tested of some schemes: those of the list, or one from the outside.
A layer is offered to a scheme where the scheme does not refuse it, and ranks are percentages of the
scheme's own limits: nothing here names a scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest

from conformance import metrics, plain, structures
from conformance.common import LAYERS, METRICS, PERCENTS, name_of
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.rewriting.forms import FORMS
from onnx_lowrank.schemes import Scheme

OF_A_SCHEME: tuple[tuple[Any, ...], ...] = (
    (plain.a_scheme_takes_some_layer_and_lacks_nothing,),
    *(
        (metrics.error_falls_with_the_last_rank, m)
        for m in ("frobenius", "covariance", "mahalanobis")
    ),
)
OF_A_LAYER: tuple[tuple[Any, ...], ...] = (
    *((plain.shapes_types_and_a_reported_error_that_is_the_real_one, p) for p in PERCENTS),
    *((plain.params_are_those_of_the_factors_and_macs_follow, p) for p in PERCENTS),
    *((structures.instances_are_what_a_fit_may_look_like, p) for p in PERCENTS),
    (structures.the_expression_is_that_of_the_factors,),
    (plain.exact_where_the_largest_ranks_have_room_for_every_weight,),
    (plain.deterministic_and_the_weight_is_left_alone,),
    *((plain.the_relative_error_does_not_depend_on_the_scale, s) for s in (1e-6, 1e6)),
    *((plain.weights_with_nothing_in_them, p) for p in PERCENTS),
    *((plain.a_weight_that_is_not_finite_is_an_error, bad) for bad in (np.nan, np.inf, -np.inf)),
    (plain.ranks_resolve_within_their_limits,),
    (plain.a_count_over_its_limit_is_refused_with_the_limit,),
    *((metrics.a_fit_is_as_good_as_it_says_and_is_stored_and_read, name) for name in METRICS),
    *((metrics.exact_at_full_rank, name) for name in METRICS[1:]),
    *(
        (structures.nodes_compute_what_the_factors_stand_for, form, window)
        for form in FORMS.names
        for window in (False, True)
    ),
)
OF_A_REFUSED_LAYER: tuple[tuple[Any, ...], ...] = (
    (plain.a_refusal_is_a_sentence_and_resolving_raises_it,),
)


def cases(schemes: Iterable[type[Scheme]]) -> list[Any]:
    """Return all that is to be tested of some schemes, as parameters of a test: calls to make."""
    found = []

    def add(check: Callable[..., None], *arguments: Any) -> None:
        named = [name_of(a) if isinstance(a, ConvSpec) else str(a) for a in arguments[1:]]
        name = "-".join([arguments[0].name, *named, check.__name__])
        found.append(pytest.param(partial(check, *arguments), id=name))

    for scheme in schemes:
        for check, *rest in OF_A_SCHEME:
            add(check, scheme, *rest)
        for conv in LAYERS:
            taken = scheme.refusal(conv) is None
            for check, *rest in OF_A_LAYER if taken else OF_A_REFUSED_LAYER:
                add(check, scheme, conv, *rest)
    return found
