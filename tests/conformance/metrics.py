"""What a scheme promises in every metric, and of a fit that is stored and read."""

from __future__ import annotations

import io
from dataclasses import asdict, replace

import numpy as np
import pytest

from conformance.common import (
    EPS,
    LAYERS,
    assert_same_arrays,
    fit_in,
    metric_of,
    random_weight,
    resolved,
)
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.fitting.arrays import from_arrays, to_arrays
from onnx_lowrank.fitting.layer import LayerFit
from onnx_lowrank.schemes import Fit, Rank, Scheme


def error_falls_with_the_last_rank(cls: type[Scheme], metric: str) -> None:
    conv = next(conv for conv in LAYERS if cls.refusal(conv) is None)
    weight, (*others, last) = random_weight(conv), cls.rank_names()
    ranks = {rank: Rank(40.0, percent=True) for rank in others}
    chosen: dict[int, float] = {}
    for percent in (15.0, 50.0, 100.0):
        scheme = cls.resolve({**ranks, last: Rank(percent, percent=True)}, conv)
        error = fit_in(metric_of(metric, conv), scheme, weight, conv).error
        chosen[asdict(scheme)[last]] = error
    assert len(chosen) == 3, "three ranks are tried"
    errors = [chosen[rank] for rank in sorted(chosen)]
    if metric == "frobenius":
        assert errors[0] > errors[1] > errors[2]
        return
    # Clusters of channels are those of the plain norm in every metric: more of them need not be
    # better than fewer in each step.
    assert errors[2] < min(errors[:2])


def a_fit_is_as_good_as_it_says_and_is_stored_and_read(
    cls: type[Scheme], conv: ConvSpec, name: str
) -> None:
    scheme, metric, weight = resolved(cls, conv, 40.0), metric_of(name, conv), random_weight(conv)
    before = weight.copy()
    weight.setflags(write=False)
    result, again = (fit_in(metric, scheme, weight, conv) for _ in range(2))
    assert np.array_equal(weight, before)
    assert_same_arrays(result.factors, again.factors)
    rest = metric.squared_norm(weight - result.factors.reconstruct())
    real = np.sqrt(max(rest, 0.0) / metric.squared_norm(weight))
    # A squared error found as a difference of squared norms: what is lost there, and its root
    # where nothing else is left of it.
    rounding = weight.size * EPS
    assert result.error == pytest.approx(real, rel=100 * rounding, abs=np.sqrt(rounding))
    assert result.error <= result.start_error * (1 + 100 * rounding)
    stored_and_read(scheme, result, conv)


def stored_and_read(scheme: Scheme, result: Fit, conv: ConvSpec) -> None:
    """What a search keeps of a fit gives the same bits back."""
    bias = np.linspace(-1, 1, conv.out_channels)
    errors = result.start_error, result.error
    kept = LayerFit("layer", scheme, "a metric", result.factors, bias, *errors, 0.5)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **to_arrays(kept))
    file.seek(0)
    with np.load(file) as arrays:
        read = from_arrays("layer", scheme, conv, dict(arrays))
    assert_same_arrays(read.factors, result.factors)
    assert read.bias is not None
    assert read.bias.tobytes() == bias.tobytes()
    assert replace(read, factors=result.factors, bias=bias) == kept


def exact_at_full_rank(cls: type[Scheme], conv: ConvSpec, name: str) -> None:
    scheme = resolved(cls, conv, 100.0)
    error = fit_in(metric_of(name, conv), scheme, random_weight(conv), conv).error
    if scheme.params(conv) < conv.params:
        assert error < 1.0  # fewer weights than the layer: full rank is tested in its own file
        return
    # The square root of what rounding and the ridge of a regression, 1e-10, leave of a squared one.
    assert error <= 1e-5
