"""What every scheme promises, over the list of schemes; a new one is tested by its line there.

A layer is offered to a scheme where the scheme does not refuse it, and ranks are percentages of the
scheme's own limits: nothing here names a scheme.
"""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes import SCHEMES, Factors, Fit, Rank, Scheme, SchemeSpec

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)


def layer(f: int, c: int, *kernel: int, group: int = 1) -> ConvSpec:
    axes = len(kernel)
    return ConvSpec(
        in_channels=c,
        out_channels=f,
        kernel=kernel,
        strides=(1,) * axes,
        dilations=(1,) * axes,
        pads=(0,) * 2 * axes,
        group=group,
    )


LAYERS = (
    layer(12, 8, 3, 3),
    layer(6, 3, 5, 3),
    layer(8, 6, 5),
    layer(6, 4, 3, 2, 2),
    layer(1, 4, 3, 3),
    layer(4, 1, 3, 3),
    layer(1, 1, 2, 2),
    layer(10, 6),
    layer(8, 6, 1, 1),
    layer(8, 4, 3, 3, group=2),
    layer(6, 6, 3, 3, group=6),
)
PERCENTS = (40.0, 100.0)


def name_of(conv: ConvSpec) -> str:
    kernel = "x".join(map(str, conv.kernel)) or "fc"
    return f"{conv.out_channels}-{conv.in_channels}-{kernel}-g{conv.group}"


def resolved(cls: type[Scheme], conv: ConvSpec, percent: float) -> Scheme:
    return cls.resolve({rank: Rank(percent, percent=True) for rank in cls.rank_names()}, conv)


def random_weight(conv: ConvSpec, seed: int = 0) -> Array:
    """Gaussian weights whose channels differ in scale, as trained ones do, so that ranks matter."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(conv.weight_shape)
    for axis, length in enumerate(weight.shape):
        decay = np.linspace(1.0, 0.3, length)
        weight *= decay.reshape(-1, *(1,) * (weight.ndim - axis - 1))
    return weight


def fit(scheme: Scheme, weight: Array, conv: ConvSpec, seed: int = 0) -> Fit:
    rng = np.random.default_rng(seed)
    if conv.group == 1:
        return scheme.fit(weight, metric=Frobenius(), rng=rng)
    return scheme.fit(weight, metric=Frobenius(), rng=rng, group=conv.group)


def arrays(factors: Factors) -> dict[str, NDArray[np.generic]]:
    assert is_dataclass(factors)
    values = {field.name: getattr(factors, field.name) for field in fields(factors)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


TAKEN = [(cls, conv) for cls, conv in product(SCHEMES, LAYERS) if cls.refusal(conv) is None]
REFUSED = [(cls, conv) for cls, conv in product(SCHEMES, LAYERS) if cls.refusal(conv) is not None]


def cases(pairs: list[tuple[type[Scheme], ConvSpec]]) -> pytest.MarkDecorator:
    ids = [f"{cls.name}-{name_of(conv)}" for cls, conv in pairs]
    return pytest.mark.parametrize(("cls", "conv"), pairs, ids=ids)


every_scheme = pytest.mark.parametrize("cls", SCHEMES, ids=lambda cls: cls.name)


@every_scheme
def test_a_scheme_takes_some_layer_and_has_a_name_of_its_own(cls: type[Scheme]) -> None:
    assert any(taker is cls for taker, _ in TAKEN)
    assert [other.name for other in SCHEMES].count(cls.name) == 1
    assert cls.rank_names()


@cases(TAKEN)
@pytest.mark.parametrize("percent", PERCENTS)
def test_shapes_types_and_a_reported_error_that_is_the_real_one(
    cls: type[Scheme], conv: ConvSpec, percent: float
) -> None:
    weight = random_weight(conv)
    result = fit(resolved(cls, conv, percent), weight, conv)
    dense = result.factors.reconstruct()
    assert dense.shape == conv.weight_shape
    assert dense.dtype == np.float64
    for name, value in arrays(result.factors).items():
        assert value.dtype in (np.float64, np.int64), name
        assert np.isfinite(value).all(), name
    # Both sides sum the same squares; each rounds every term once and every partial sum once.
    measured = np.linalg.norm(weight - dense) / np.linalg.norm(weight)
    assert result.error == pytest.approx(measured, rel=2 * weight.size * EPS, abs=1e-30)
    assert result.error <= result.start_error * (1 + 2 * weight.size * EPS)


@cases(TAKEN)
@pytest.mark.parametrize("percent", PERCENTS)
def test_params_are_those_of_the_factors_and_macs_follow(
    cls: type[Scheme], conv: ConvSpec, percent: float
) -> None:
    scheme = resolved(cls, conv, percent)
    factors = fit(scheme, random_weight(conv), conv).factors
    values = [v for v in arrays(factors).values() if v.dtype == np.float64]
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


@cases(TAKEN)
def test_exact_where_the_largest_ranks_have_room_for_every_weight(
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


@every_scheme
def test_error_falls_with_the_last_rank(cls: type[Scheme]) -> None:
    conv = next(conv for taker, conv in TAKEN if taker is cls)
    weight, (*others, last) = random_weight(conv), cls.rank_names()
    ranks = {rank: Rank(40.0, percent=True) for rank in others}
    chosen: dict[int, float] = {}
    for percent in (15.0, 50.0, 100.0):
        scheme = cls.resolve({**ranks, last: Rank(percent, percent=True)}, conv)
        chosen[asdict(scheme)[last]] = fit(scheme, weight, conv).error
    assert len(chosen) == 3, "the ladder has three steps"
    errors = [chosen[rank] for rank in sorted(chosen)]
    assert errors[0] > errors[1] > errors[2]


@cases(TAKEN)
def test_deterministic_and_the_weight_is_left_alone(cls: type[Scheme], conv: ConvSpec) -> None:
    weight = random_weight(conv)
    before = weight.copy()
    weight.setflags(write=False)
    scheme = resolved(cls, conv, 40.0)
    one, two = (arrays(fit(scheme, weight, conv, seed=3).factors) for _ in range(2))
    assert np.array_equal(weight, before)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.tobytes() == two[name].tobytes(), name
        assert not np.shares_memory(value, weight), name


@cases(TAKEN)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_relative_error_does_not_depend_on_the_scale(
    cls: type[Scheme], conv: ConvSpec, scale: float
) -> None:
    # A power of two scales without rounding, so that every decision is the same.
    factor = 2.0 ** round(np.log2(scale))
    scheme, weight = resolved(cls, conv, 40.0), random_weight(conv)
    plain, scaled = (fit(scheme, weight * s, conv).error for s in (1.0, factor))
    # The fits stop at a relative fall of 1e-3 of the squared error or less.
    assert scaled == pytest.approx(plain, rel=1e-3, abs=1e-12)


@cases(TAKEN)
@pytest.mark.parametrize("percent", PERCENTS)
def test_weights_with_nothing_in_them(cls: type[Scheme], conv: ConvSpec, percent: float) -> None:
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


@cases(TAKEN)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_an_error(
    cls: type[Scheme], conv: ConvSpec, bad: float
) -> None:
    weight = random_weight(conv)
    weight.flat[-1] = bad
    with pytest.raises(SchemeError, match="NaN or Inf"):
        fit(resolved(cls, conv, 40.0), weight, conv)


@cases(REFUSED)
def test_a_refusal_is_a_sentence_and_resolving_raises_it(cls: type[Scheme], conv: ConvSpec) -> None:
    reason = cls.refusal(conv)
    assert reason is not None
    assert len(reason.split()) >= 4, "a reason, not a word"
    assert "\n" not in reason
    with pytest.raises(SchemeError) as caught:
        resolved(cls, conv, 50.0)
    assert reason in str(caught.value)


@cases(TAKEN)
def test_ranks_resolve_within_their_limits(cls: type[Scheme], conv: ConvSpec) -> None:
    for percent in (0.01, 33.0, 50.0, 100.0):
        scheme = resolved(cls, conv, percent)
        chosen: dict[str, int] = {}
        for rank, value in asdict(scheme).items():
            assert 1 <= value <= cls.limit(rank, chosen, conv)
            chosen[rank] = value
        # What resolved is admissible as a count, and its specification reads back as itself.
        assert SchemeSpec.parse(scheme.spec).resolve(conv) == scheme
        assert str(SchemeSpec.parse(scheme.spec)) == scheme.spec


@cases(TAKEN)
def test_a_count_over_its_limit_is_refused_with_the_limit(
    cls: type[Scheme], conv: ConvSpec
) -> None:
    largest = asdict(resolved(cls, conv, 100.0))
    for rank, value in largest.items():
        ranks = {name: Rank(count) for name, count in largest.items()} | {rank: Rank(value + 1)}
        with pytest.raises(SchemeError, match=f"{rank}={value + 1} .*{value}"):
            cls.resolve(ranks, conv)
