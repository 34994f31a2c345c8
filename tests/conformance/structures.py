"""What a scheme's structures promise: instances without a fit, the expression, the nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from builders import conv_model, run, text_model

from conformance.common import (
    EPS,
    Array,
    assert_same_arrays,
    fit,
    random_weight,
    resolved,
)
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import FORMS, STANDARD
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.schemes import Factors, Scheme


def instances_are_what_a_fit_may_look_like(
    cls: type[Scheme], conv: ConvSpec, percent: float
) -> None:
    scheme = resolved(cls, conv, percent)
    fitted = fit(scheme, random_weight(conv), conv).factors
    random = scheme.instances(conv, np.random.default_rng(4))
    again = scheme.instances(conv, np.random.default_rng(4))
    zeros = scheme.instances(conv, None)
    looks = []
    for one, two, three in zip(random, again, zeros, strict=True):
        assert type(one) in cls.structures
        assert_same_arrays(one, two)
        assert one.reconstruct().shape == conv.weight_shape
        floats = [value for value in one.arrays().values() if value.dtype == np.float64]
        assert scheme.params(conv) == sum(value.size for value in floats)
        assert all((np.abs(value) > 1e-6).all() for value in floats), "far from denormals"
        assert outline(three) == outline(one)
        assert not any(v.any() for v in three.arrays().values() if v.dtype == np.float64)
        looks.append(outline(one))
    assert outline(fitted) in looks
    assert len(set(looks)) == len(looks)


def outline(factors: Factors) -> tuple[Any, ...]:
    """Return class, types and shapes; of indices, how often each occurs."""
    return type(factors), *(
        (name, value.dtype, value.shape, tuple(sorted(value.ravel())) if value.dtype == int else ())
        for name, value in factors.arrays().items()
    )


def the_expression_is_that_of_the_factors(cls: type[Scheme], conv: ConvSpec) -> None:
    for factors in resolved(cls, conv, 40.0).instances(conv, np.random.default_rng(4)):
        now = factors.multilinear()
        if now is None:
            continue
        dense = factors.reconstruct()
        # Sums of the same products in another order, of values of order one.
        np.testing.assert_allclose(now.dense(), dense, rtol=0, atol=dense.size * EPS)
        np.testing.assert_array_equal(now.scatter(now.gather(dense)), dense)
        assert_same_arrays(now.rebuild(now.arrays), factors)
        for subscripts in now.subscripts:
            assert subscripts.startswith(now.blocks)


def nodes_compute_what_the_factors_stand_for(
    cls: type[Scheme], conv: ConvSpec, form: str, window: bool
) -> None:
    axes = len(conv.kernel)
    if window:
        conv = replace(conv, strides=(2,) * axes, pads=(1,) * axes + (0,) * axes)
    rng = np.random.default_rng(5)
    size = tuple(7 + axis for axis in range(axes))
    x = rng.standard_normal((2, conv.in_channels, *size)).astype(np.float32)
    bias = rng.standard_normal(conv.out_channels)
    scheme = resolved(cls, conv, 40.0)
    for factors in scheme.instances(conv, rng):
        refusal = FORMS[form].refusal(type(factors), conv, np.dtype(np.float32))
        if FORMS[form] is STANDARD:
            assert refusal is None, "standard ops are what every structure can have"
        if refusal is not None:
            continue
        model = one_layer(conv, factors.reconstruct(), bias, size)
        changed, _ = replace_layers(model, {"layer": Replacement(factors, bias, FORMS[form])})
        onnx.checker.check_model(changed, full_check=True)
        (expected,), (actual,) = (run(each, {"x": x}) for each in (model, changed))
        # Every product and every partial sum rounds once, and no output is a sum of more products
        # in a row than there are weights; the sum of their magnitudes is what the same layer
        # computes of magnitudes.
        large = type(factors)(
            **{k: np.abs(v) if v.dtype.kind == "f" else v for k, v in factors.arrays().items()}
        )
        loud = one_layer(conv, large.reconstruct(), np.abs(bias), size)
        (magnitudes,) = run(loud, {"x": np.abs(x)})
        terms = scheme.params(conv) + 1
        bound = 2 * terms * np.finfo(np.float32).eps * magnitudes
        assert actual.shape == expected.shape
        assert (np.abs(actual - expected) <= bound).all()
        assert bound.max() < np.abs(expected).max(), "the bound would pass anything"
        if FORMS[form] is STANDARD:
            assert {node.domain for node in changed.graph.node} == {""}


def one_layer(conv: ConvSpec, weight: Array, bias: Array, size: tuple[int, ...]) -> onnx.ModelProto:
    if not conv.kernel:
        f, c = weight.shape
        model = text_model(
            f"net (float[N,{c}] x) => (float[N,{f}] y) {{ y = Gemm<transB=1>(x, w, b) }}",
            {"w": weight.astype(np.float32), "b": bias.astype(np.float32)},
        )
        model.graph.node[0].name = "layer"
        return model
    return conv_model(
        weight,
        bias,
        strides=conv.strides,
        pads=conv.pads,
        group=conv.group,
        input_shape=("N", conv.in_channels, *size),
        name="layer",
    )
