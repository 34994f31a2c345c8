"""What a scheme promises of its ranks, its refusals and its fits in the plain norm."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from conformance.common import (
    EPS,
    LAYERS,
    assert_same_arrays,
    fit,
    random_weight,
    resolved,
)
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.schemes import Rank, Scheme, SchemeSpec
from onnx_lowrank.schemes.base import lacks


def a_scheme_takes_some_layer_and_lacks_nothing(cls: type[Scheme]) -> None:
    assert any(cls.refusal(conv) is None for conv in LAYERS)
    assert lacks(cls) is None


def shapes_types_and_a_reported_error_that_is_the_real_one(
    cls: type[Scheme], conv: ConvSpec, percent: float
) -> None:
    weight = random_weight(conv)
    result = fit(resolved(cls, conv, percent), weight, conv)
    assert type(result.factors) in cls.structures
    dense = result.factors.reconstruct()
    assert dense.shape == conv.weight_shape
    assert dense.dtype == np.float64
    for name, value in result.factors.arrays().items():
        assert value.dtype in (np.float64, np.int64), name
        assert np.isfinite(value).all(), name
    # Both sides sum the same squares; each rounds every term once and every partial sum once.
    measured = np.linalg.norm(weight - dense) / np.linalg.norm(weight)
    assert result.error == pytest.approx(measured, rel=2 * weight.size * EPS, abs=1e-30)
    assert result.error <= result.start_error * (1 + 2 * weight.size * EPS)


def params_are_those_of_the_factors_and_macs_follow(
    cls: type[Scheme], conv: ConvSpec, percent: float
) -> None:
    scheme = resolved(cls, conv, percent)
    factors = fit(scheme, random_weight(conv), conv).factors
    values = [v for v in factors.arrays().values() if v.dtype == np.float64]
    assert scheme.params(conv) == sum(value.size for value in values)
    # Where input and output have as many positions, each weight is used once at each of them.
    size = (5,) * len(conv.kernel)
    same = replace(conv, input_size=size, output_size=size)
    assert scheme.macs(same) == scheme.params(conv) * 5 ** len(conv.kernel)
    # Stages run at positions of the input, of the output, or of one of each per axis.
    strided = replace(conv, input_size=tuple(7 for _ in size), output_size=tuple(3 for _ in size))
    macs = scheme.macs(strided)
    assert macs is not None
    least, most = (scheme.params(conv) * n ** len(size) for n in (3, 7))
    assert least <= macs <= most
    assert scheme.macs(conv) is None


def exact_where_the_largest_ranks_have_room_for_every_weight(
    cls: type[Scheme], conv: ConvSpec
) -> None:
    scheme = resolved(cls, conv, 100.0)
    error = fit(scheme, random_weight(conv), conv).error
    if scheme.params(conv) < conv.params:
        assert error < 1.0  # fewer weights than the layer: full rank is tested in its own file
        return
    # Bases come from eigenvectors of Gram matrices of at most n = max(C, F, taps) * taps columns:
    # orthonormal to about n eps, applied on two sides.
    assert error <= 4 * max(conv.weight_shape[:2]) * conv.taps * EPS


def deterministic_and_the_weight_is_left_alone(cls: type[Scheme], conv: ConvSpec) -> None:
    weight = random_weight(conv)
    before = weight.copy()
    weight.setflags(write=False)
    scheme = resolved(cls, conv, 40.0)
    one, two = (fit(scheme, weight, conv, seed=3).factors for _ in range(2))
    assert np.array_equal(weight, before)
    assert_same_arrays(one, two)
    for name, value in one.arrays().items():
        assert not np.shares_memory(value, weight), name


def the_relative_error_does_not_depend_on_the_scale(
    cls: type[Scheme], conv: ConvSpec, scale: float
) -> None:
    # A power of two scales without rounding, so that every decision is the same.
    factor = 2.0 ** round(np.log2(scale))
    scheme, weight = resolved(cls, conv, 40.0), random_weight(conv)
    plain, scaled = (fit(scheme, weight * s, conv).error for s in (1.0, factor))
    # The fits stop at a relative fall of 1e-3 of the squared error or less.
    assert scaled == pytest.approx(plain, rel=1e-3, abs=1e-12)


def weights_with_nothing_in_them(cls: type[Scheme], conv: ConvSpec, percent: float) -> None:
    scheme = resolved(cls, conv, percent)
    result = fit(scheme, np.zeros(conv.weight_shape), conv)
    assert result.error == result.start_error == 0.0
    assert not result.factors.reconstruct().any()

    part = random_weight(conv)
    part[::2] = 0.0
    part[:, ::2] = 0.0
    part[..., :1] = 0.0
    result = fit(scheme, part, conv)
    assert np.isfinite(result.factors.reconstruct()).all()
    assert result.error <= result.start_error * (1 + 2 * part.size * EPS)
    assert result.error <= 1.0


def a_weight_that_is_not_finite_is_an_error(cls: type[Scheme], conv: ConvSpec, bad: float) -> None:
    weight = random_weight(conv)
    weight.flat[-1] = bad
    with pytest.raises(SchemeError, match="NaN or Inf"):
        fit(resolved(cls, conv, 40.0), weight, conv)


def ranks_resolve_within_their_limits(cls: type[Scheme], conv: ConvSpec) -> None:
    for percent in (0.01, 33.0, 50.0, 100.0):
        scheme = resolved(cls, conv, percent)
        chosen: dict[str, int] = {}
        for rank, value in asdict(scheme).items():
            assert 1 <= value <= cls.limit(rank, chosen, conv)
            chosen[rank] = value
        # What resolved is admissible as a count, and its specification reads back as itself.
        assert SchemeSpec.parse(scheme.spec).resolve(conv) == scheme
        assert str(SchemeSpec.parse(scheme.spec)) == scheme.spec


def a_count_over_its_limit_is_refused_with_the_limit(cls: type[Scheme], conv: ConvSpec) -> None:
    largest = asdict(resolved(cls, conv, 100.0))
    for rank, value in largest.items():
        ranks = {name: Rank(count) for name, count in largest.items()} | {rank: Rank(value + 1)}
        with pytest.raises(SchemeError, match=f"{rank}={value + 1} .*{value}"):
            cls.resolve(ranks, conv)


def a_refusal_is_a_sentence_and_resolving_raises_it(cls: type[Scheme], conv: ConvSpec) -> None:
    reason = cls.refusal(conv)
    assert reason is not None
    assert len(reason.split()) >= 4, "a reason, not a word"
    assert "\n" not in reason
    with pytest.raises(SchemeError) as caught:
        resolved(cls, conv, 50.0)
    assert reason in str(caught.value)
