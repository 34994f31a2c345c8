"""The layer as it is, as a scheme without ranks."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

import onnx_lowrank
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError, SchemeError
from onnx_lowrank.fitting.arrays import from_arrays, to_arrays
from onnx_lowrank.fitting.layer import FitProblem, fit_layer
from onnx_lowrank.metrics.base import Metric
from onnx_lowrank.metrics.covariance import Covariance, RowCovariance
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.metrics.mahalanobis import Mahalanobis
from onnx_lowrank.schemes import SCHEMES, Dense, SchemeSpec
from onnx_lowrank.schemes.base import Weight
from onnx_lowrank.schemes.dense import DenseFactors
from onnx_lowrank.schemes.fits.fit import fit_schemes

LAYERS = [((), 1), ((1, 1), 1), ((3, 3), 1), ((3, 3), 6), ((3, 2, 2), 2), ((5,), 1)]


def layer(kernel: tuple[int, ...], group: int) -> ConvSpec:
    axes = len(kernel)
    return ConvSpec(
        in_channels=6,
        out_channels=12,
        kernel=kernel,
        strides=(1,) * axes,
        dilations=(1,) * axes,
        pads=(0,) * 2 * axes,
        group=group,
        input_size=(8,) * axes,
        output_size=(7,) * axes,
    )


def metrics(weight: Weight, group: int) -> list[Metric]:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((group, 200, weight[0].size))
    found: list[Metric] = [
        Frobenius(),
        Mahalanobis(rng.uniform(0.5, 2, weight.shape)),
        Covariance(rows.swapaxes(1, 2) @ rows, rng.uniform(0.5, 2, len(weight))),
    ]
    return [*found, *([RowCovariance(rows[0], 0.1)] if group == 1 else [])]


@pytest.mark.parametrize(("kernel", "group"), LAYERS)
def test_any_layer_is_exactly_itself_in_every_metric_and_costs_the_same(
    kernel: tuple[int, ...], group: int
) -> None:
    conv = layer(kernel, group)
    scheme = SchemeSpec.parse("dense").resolve(conv)
    assert scheme == Dense()
    assert (scheme.macs(conv), scheme.params(conv)) == (conv.macs, conv.params)
    weight = np.random.default_rng(1).standard_normal(conv.weight_shape)
    for metric in metrics(weight, group):
        rng = np.random.default_rng(0)
        (fit,) = fit_schemes([scheme], weight, metric=metric, rng=rng, group=group)
        assert isinstance(fit.factors, DenseFactors), metric.name
        assert fit.start_error == fit.error == 0.0
        np.testing.assert_array_equal(fit.factors.reconstruct(), weight)
        assert not np.shares_memory(fit.factors.weight, weight)


def test_it_approximates_nothing_and_so_is_none_of_the_schemes_but_can_be_written() -> None:
    assert Dense not in SCHEMES
    spec = SchemeSpec.parse("dense")
    assert str(spec) == Dense().spec == "dense"
    with pytest.raises(SchemeError, match="did you mean 'dense'"):
        SchemeSpec.parse("dens")
    for text in ("dense:R=3", "dense:macs=0.5", "dense:R"):
        with pytest.raises(SchemeError, match="dense has no ranks; write dense"):
            SchemeSpec.parse(text)


def test_a_weight_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(SchemeError, match="NaN or Inf"):
        Dense().fit(np.full((2, 3), np.nan), metric=Frobenius(), rng=np.random.default_rng(0))


def test_its_fit_is_stored_and_read() -> None:
    weight = np.random.default_rng(1).standard_normal((12, 6, 3, 3))
    problem = FitProblem(weight, Frobenius(), lambda fitted: fitted.sum(axis=(1, 2, 3)))
    fit = fit_layer("layer", Dense(), problem, seed=0)
    read = from_arrays("layer", Dense(), layer((3, 3), 1), to_arrays(fit))
    assert isinstance(read.factors, DenseFactors)
    assert read.factors.weight.tobytes() == weight.tobytes()
    assert read.bias is not None
    assert fit.bias is not None
    assert read.bias.tobytes() == fit.bias.tobytes()


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        ("Conv<group=2, pads=[1,1,1,1], strides=[2,2]>", (12, 4, 3, 3)),
        ("Conv", (12, 8, 1, 1)),
        ("Gemm<transB=1>", (12, 8)),
    ],
)
def test_a_plan_keeps_it_or_writes_it_in_a_form(op: str, shape: tuple[int, ...]) -> None:
    x, y = ("1,8,9,9", "1,F,H,W") if len(shape) == 4 else ("1,8", "1,F")
    head = '<ir_version: 8, opset_import: ["" : 13]>'
    net = f"{head} net (float[{x}] x) => (float[{y}] y) {{ y = {op}(x, w, b) }}"
    model = parser.parse_model(net)
    rng = np.random.default_rng(1)
    for name, values in (("w", rng.standard_normal(shape)), ("b", rng.standard_normal(shape[0]))):
        tensor = numpy_helper.from_array(values.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    model.graph.node[0].name = "layer"
    with pytest.raises(PlanError, match="layer: the plan keeps it"):
        onnx_lowrank.compress(model, plan=["layer=dense"])
    result = onnx_lowrank.compress(model, plan=["layer=dense@standard"])
    before, after = (
        numpy_helper.to_array(each.graph.initializer[0]) for each in (model, result.model)
    )
    assert np.array_equal(after, before if len(shape) == 4 else before.T)
    (row,) = result.report.cost.layers
    assert (row.params_new, row.macs_new) == (row.params, row.macs)
    assert onnx_lowrank.verify(model, result.model).passed
