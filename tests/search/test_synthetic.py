"""Synthetic factors have the structure, and so the speed, of real fits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.fitting.layer import FitProblem, fit_layer_by_schemes
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.schemes import SCHEMES, SchemeSpec
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.single_layer import (
    layer_feeds,
    replaced,
    single_layer_model,
    structure,
)
from onnx_lowrank.search.synthetic import synthetic_fits

NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[%(shape)s] x) => (float[%(out)s] y) { y = %(op)s(x, w) }
"""
CONV = "Conv<pads=[1,1,1,1], strides=[2,2]>"
CASES = [
    ("mono:C=4", CONV, (12, 8, 3, 3)),
    ("bicluster-svd:G=2,H=3,K1=3,K2=2", CONV, (12, 8, 3, 3)),
    ("bicluster-outer:G=2,H=3,K=3", CONV, (12, 8, 3, 3)),
    ("tucker2:R1=5,R2=6", CONV, (12, 8, 3, 3)),
    ("cp:R=7", CONV, (12, 8, 3, 3)),
    ("spatial:R=5", CONV, (12, 8, 3, 5)),  # one order
    ("spatial:R=5", CONV, (12, 8, 3, 3)),  # the fit decides
    ("channel:R=5", CONV, (12, 8, 3, 3)),
    ("channel:R=2", "Conv<group=2, pads=[1,1,1,1]>", (12, 4, 3, 3)),
    ("svd:R=5", "Conv", (12, 8, 1, 1)),
    ("svd:R=5", "Gemm<transB=1>", (12, 8)),
]


def layer_model(op: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    group = 2 if "group=2" in op else 1
    conv = len(shape) == 4
    ends = {"shape": f"1,{group * shape[1]}" + ",9,9" * conv, "out": "1,F" + ",H,W" * conv}
    model = parser.parse_model(NET % {**ends, "op": op})
    weight = np.random.default_rng(1).standard_normal(shape)
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "w"))
    model.graph.node[0].name = "layer"
    return model


def test_every_scheme_is_here() -> None:
    assert {spec.partition(":")[0] for spec, *_ in CASES} == {scheme.name for scheme in SCHEMES}


@pytest.mark.parametrize(("text", "op", "shape"), CASES)
def test_the_structure_is_that_of_a_fit(text: str, op: str, shape: tuple[int, ...]) -> None:
    model = layer_model(op, shape)
    (layer,) = find_layers(model)
    assert layer.spec is not None
    scheme = SchemeSpec.parse(text).resolve(layer.spec)
    weight = numpy_helper.to_array(model.graph.initializer[0]).astype(float)
    # As with data, the bias is refitted: there always is one.
    problem = FitProblem(
        weight, Frobenius(), lambda fitted: np.zeros(len(fitted)), layer.spec.group
    )
    (fit,) = fit_layer_by_schemes("layer", [scheme], problem, seed=0)
    single = single_layer_model(model, layer, batch=2)
    ours = {
        structure(replaced(single, Candidate(each, STANDARD)))
        for each in synthetic_fits("layer", scheme, layer.spec)
    }
    assert structure(replaced(single, Candidate(fit, STANDARD))) in ours
    assert len(ours) == (2 if text.startswith("spatial") and shape[2] == shape[3] else 1)


@pytest.mark.parametrize(("text", "op", "shape"), CASES)
def test_no_value_comes_near_a_denormal(text: str, op: str, shape: tuple[int, ...]) -> None:
    model = layer_model(op, shape)
    (layer,) = find_layers(model)
    assert layer.spec is not None
    single = single_layer_model(model, layer, batch=1)
    x = layer_feeds(single, seed=0)["x"]
    assert np.abs(x[x != 0]).min() > 1e-30
    for fit in synthetic_fits("layer", SchemeSpec.parse(text).resolve(layer.spec), layer.spec):
        for tensor in replaced(single, Candidate(fit, STANDARD)).graph.initializer:
            value = numpy_helper.to_array(tensor)
            if value.dtype.kind == "f":
                # The zeros of dense forms of 1x1 stages are exact: they are no denormals.
                assert np.abs(value[value != 0]).min() > 1e-6
