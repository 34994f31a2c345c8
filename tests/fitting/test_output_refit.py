"""Last stages fitted to the original's outputs: against plain least squares on all positions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import add_weights, text_model
from onnx import numpy_helper

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.fitting.layer import LayerFit, fit_layer
from onnx_lowrank.fitting.model import layer_problem
from onnx_lowrank.fitting.output_refit import refit_outputs
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import find_layers, layer_bias, layer_weight
from onnx_lowrank.rewriting.form import Replacement
from onnx_lowrank.rewriting.forms import STANDARD
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.runtime import model_inputs, open_session
from onnx_lowrank.schemes import SchemeSpec

C, F, SIDE, IMAGES = 6, 8, 9, 200
SECOND = ("tucker2:R1=3,R2=4", "cp:R=5", "spatial:R=4", "channel:R=3")


def network() -> onnx.ModelProto:
    model = text_model(
        f"net (float[N,{C},{SIDE},{SIDE}] x) => (float[N,{F},{SIDE},{SIDE}] y) {{"
        " [one] a = Conv<pads=[1,1,1,1]>(x, v, u) b = Relu(a)"
        " [two] y = Conv<pads=[1,1,1,1]>(b, w, t) }"
    )
    rng = np.random.default_rng(0)
    add_weights(
        model,
        {
            "v": rng.standard_normal((C, C, 3, 3)).astype(np.float32),
            "u": rng.standard_normal(C).astype(np.float32),
            "w": rng.standard_normal((F, C, 3, 3)).astype(np.float32),
            "t": rng.standard_normal(F).astype(np.float32),
        },
    )
    return model


def samples(model: onnx.ModelProto) -> tuple[np.ndarray, Dataset]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((IMAGES, C, SIDE, SIDE)) + rng.standard_normal((IMAGES, C, 1, 1))
    values = x.astype(np.float32)
    return values, open_dataset([{"x": each[None]} for each in values], model_inputs(model))


def fitted(model: onnx.ModelProto, texts: dict[str, str]) -> dict[str, LayerFit]:
    """Return fits in the plain norm."""
    editor, found = GraphEditor(model), {}
    for layer in find_layers(model):
        if layer.name in texts:
            assert layer.spec is not None
            weight, bias = layer_weight(editor, layer), layer_bias(editor, layer)
            scheme = SchemeSpec.parse(texts[layer.name]).resolve(layer.spec)
            found[layer.name] = fit_layer(
                layer.name, scheme, layer_problem(weight, bias, 1), seed=0
            )
    return found


def outputs(model: onnx.ModelProto, fits: dict[str, LayerFit], x: np.ndarray) -> np.ndarray:
    values = {name: Replacement(fit.factors, fit.bias, STANDARD) for name, fit in fits.items()}
    replaced = replace_layers(model, values)[0]
    found: np.ndarray = open_session(replaced).run({"x": x}, ["y"])["y"]
    return found.astype(np.float64)


@pytest.mark.parametrize("second", SECOND)
def test_the_last_stage_is_a_regression_on_what_it_sees(second: str) -> None:
    model = network()
    x, dataset = samples(model)
    fits = fitted(model, {"one": "channel:R=4", "two": second})
    refit = refit_outputs(model, fits, dataset)
    assert refit.failed == {}
    assert refit.fits["one"] is fits["one"]  # it sees what the original sees
    wanted = outputs(model, {}, x)
    before, after = (np.sum((outputs(model, f, x) - wanted) ** 2) for f in (fits, refit.fits))
    found = refit.fits["two"]
    last = found.factors.output_map()
    assert last is not None
    # What the last stage sees, as the output of a layer of its own without a bias.
    start = fits["two"].factors.output_map()
    assert start is not None
    np.testing.assert_allclose(last.inputs, start.inputs)
    size = len(last.inputs)
    seen_by = text_model(
        f"net (float[N,{C},{SIDE},{SIDE}] x) => (float[N,{size},{SIDE},{SIDE}] z) {{"
        " [one] a = Conv<pads=[1,1,1,1]>(x, v, u) b = Relu(a) z = Conv<pads=[1,1,1,1]>(b, m) }"
    )
    for tensor in model.graph.initializer[:2]:
        seen_by.graph.initializer.append(tensor)
    seen_by.graph.initializer.append(numpy_helper.from_array(last.inputs.astype(np.float32), "m"))
    one = {"one": Replacement(fits["one"].factors, fits["one"].bias, STANDARD)}
    seen = open_session(replace_layers(seen_by, one)[0]).run({"x": x}, ["z"])["z"]
    rows = np.concatenate([seen, np.ones((IMAGES, 1, SIDE, SIDE), np.float32)], axis=1)
    rows = rows.transpose(0, 2, 3, 1).reshape(-1, size + 1).astype(np.float64)
    y = wanted.transpose(0, 2, 3, 1).reshape(-1, F)
    best = np.sum((rows @ np.linalg.lstsq(rows, y, rcond=None)[0] - y) ** 2)
    # 200 images shrink the moments a little.
    assert best * (1 - 1e-6) <= after <= best + 0.02 * (before - best)
    assert after < before
    spread = np.sum((y - y.mean(axis=0)) ** 2)
    assert found.error == pytest.approx(np.sqrt(after / spread), rel=0.02)


def test_the_weight_is_the_last_stage_times_its_inputs() -> None:
    fits = fitted(network(), {"two": "tucker2:R1=3,R2=4"})
    for text in SECOND:
        factors = fitted(network(), {"two": text})["two"].factors
        last = factors.output_map()
        assert last is not None
        whole = factors.reconstruct()
        product = last.weight @ last.inputs.reshape(len(last.inputs), -1)
        np.testing.assert_allclose(product.reshape(whole.shape), whole, atol=1e-12)
        doubled = last.rebuild(2 * last.weight)
        np.testing.assert_allclose(doubled.reconstruct(), 2 * whole, atol=1e-12)
    assert fits["two"].factors.output_map() is not None
    mono = fitted(network(), {"two": "mono:C=2"})["two"]
    assert mono.factors.output_map() is None


def test_a_layer_without_such_a_stage_keeps_its_fit() -> None:
    model = network()
    _, dataset = samples(model)
    fits = fitted(model, {"one": "channel:R=4", "two": "mono:C=2"})
    assert refit_outputs(model, fits, dataset).fits == fits
