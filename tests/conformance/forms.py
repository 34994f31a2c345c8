"""What every form of a layer has to do, for the package's own and for those of others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from builders import conv_model, run

from onnx_lowrank.graph.check import check_model
from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.layers import Layer, find_layers, layer_bias
from onnx_lowrank.rewriting.form import Form, Replacement
from onnx_lowrank.rewriting.passes.normalize import normalised
from onnx_lowrank.rewriting.rewrite import replace_layers
from onnx_lowrank.schemes import SCHEMES
from onnx_lowrank.schemes.base import Factors, Rank
from onnx_lowrank.schemes.dense import Dense, DenseFactors

C, F = 8, 12
# Weight shape, attributes of the Conv, and the size of its input.
LAYERS = (
    ((F, C, 3, 3), {"pads": (1, 1, 1, 1)}, (9, 8)),
    ((F, C, 3, 3), {"pads": (0, 2, 1, 0), "strides": (2, 1), "dilations": (1, 2)}, (9, 10)),
    ((F, C, 1, 1), {}, (5, 5)),
    ((F, C, 5), {"pads": (2, 2)}, (11,)),
    ((F, C // 4, 3, 3), {"group": 4}, (7, 7)),
    ((F, C, 2, 2, 2), {}, (4, 4, 4)),
)


def models() -> Iterator[tuple[onnx.ModelProto, Layer]]:
    """Yield models of one layer, with a bias and without, and the layer, normalised."""
    for index, (shape, attributes, size) in enumerate(LAYERS):
        rng = np.random.default_rng(index)
        bias = rng.standard_normal(F) if index % 2 == 0 else None
        channels = shape[1] * int(attributes.get("group", 1))
        given = {name: list(v) if isinstance(v, tuple) else v for name, v in attributes.items()}
        model = conv_model(
            rng.standard_normal(shape), bias, input_shape=("N", channels, *size), **given
        )
        prepared, _ = normalised(model, ["conv"])
        yield prepared, find_layers(prepared)[0]


def structures(layer: Layer) -> Iterator[Factors]:
    """Yield random factors of every structure that the layer can have."""
    assert layer.spec is not None
    rng = np.random.default_rng(0)
    for scheme in (*SCHEMES, Dense):
        if scheme.refusal(layer.spec) is None:
            ranks = {name: Rank(50, percent=True) for name in scheme.rank_names()}
            yield from scheme.resolve(ranks, layer.spec).instances(layer.spec, rng)


def check_form(form: Form) -> None:
    """Assert that a form refuses in a clause, or computes what the factors stand for.

    The reference is the layer with the dense weight of the factors. A value is a sum of at most so
    many products as the structure's stages have terms; each product is rounded to float32.
    """
    served = 0
    for model, layer in models():
        assert layer.spec is not None
        bias = layer_bias(GraphEditor(model), layer)
        before = model.SerializeToString()
        for factors in structures(layer):
            refusal = form.refusal(type(factors), layer.spec, layer.dtype)
            if refusal is not None:
                assert refusal
                assert "\n" not in refusal
                continue
            served += 1
            changed, result = replace_layers(model, {"conv": Replacement(factors, bias, form)})
            assert result.modified
            assert not any("standard ops it is" in each.reason for each in result.refusals)
            assert model.SerializeToString() == before
            check_model(changed)
            onnx.shape_inference.infer_shapes(changed, strict_mode=True, data_prop=True)
            graph = changed.graph
            produced = [name for node in graph.node for name in node.output]
            assert len(set(produced)) == len(produced)
            assert list(graph.input) == list(model.graph.input)
            assert list(graph.output) == list(model.graph.output)
            dense = DenseFactors(factors.reconstruct())
            reference = _with_weight(model, layer, dense)
            size = layer.spec.input_size
            assert size is not None
            x = np.random.default_rng(1).standard_normal((2, layer.spec.in_channels, *size))
            feeds = {"x": x.astype(np.float32)}
            (expected,), (actual,) = run(reference, feeds), run(changed, feeds, optimise=True)
            assert actual.shape == expected.shape
            terms = 3 * int(np.prod(dense.weight.shape[1:])) + 3 * F
            bound = 8 * np.sqrt(terms) * np.finfo(np.float32).eps * np.abs(expected).max()
            np.testing.assert_allclose(actual, expected, rtol=0, atol=float(bound))
    assert served, f"{form.name} serves nothing"


def _with_weight(model: onnx.ModelProto, layer: Layer, dense: DenseFactors) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == layer.weight:
            value = dense.weight.astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return copy
