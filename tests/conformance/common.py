"""Layers, weights and metrics of the conformance suite, and fits of a scheme to them."""

from __future__ import annotations

import numpy as np
from builders import fit_scheme
from numpy.typing import NDArray

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.schemes import Factors, Fit, Rank, Scheme

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
    layer(12, 8, 1, 1, group=2),
    layer(6, 6, 3, 3, group=6),
)
PERCENTS = (40.0, 100.0)
METRICS = ("frobenius", "covariance", "combined", "mahalanobis")


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


def metric_of(name: str, conv: ConvSpec) -> Metric:
    """Return a metric for a layer; inputs are correlated and differ in scale."""
    rng = np.random.default_rng(2)
    if name == "frobenius":
        return Frobenius()
    if name == "mahalanobis":
        return Mahalanobis(np.exp(rng.standard_normal(conv.weight_shape)))
    length = conv.params // conv.out_channels
    mixing = np.eye(length) + 0.3 * rng.standard_normal((conv.group, length, length))
    samples = rng.standard_normal((conv.group, 200, length)) @ mixing * np.linspace(0.1, 1, length)
    moments = samples.swapaxes(1, 2) @ samples / 200
    outputs = rng.uniform(0.2, 3, conv.out_channels) if name == "combined" else None
    return Covariance(moments, outputs)


def fit(scheme: Scheme, weight: Array, conv: ConvSpec, seed: int = 0) -> Fit:
    rng = np.random.default_rng(seed)
    if conv.group == 1:
        return scheme.fit(weight, metric=Frobenius(), rng=rng)
    return scheme.fit(weight, metric=Frobenius(), rng=rng, group=conv.group)


def fit_in(metric: Metric, scheme: Scheme, weight: Array, conv: ConvSpec) -> Fit:
    rng = np.random.default_rng(0)
    return fit_scheme(scheme, weight, metric=metric, rng=rng, group=conv.group)


def assert_same_arrays(one: Factors, two: Factors) -> None:
    assert type(one) is type(two)
    ours, others = one.arrays(), two.arrays()
    assert ours.keys() == others.keys()
    for name, value in ours.items():
        assert value.dtype == others[name].dtype, name
        assert value.shape == others[name].shape, name
        assert value.tobytes() == others[name].tobytes(), name
