"""Models in a few lines, and a run of them in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray
from onnx import helper, numpy_helper, parser

from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.base import Fit
from onnx_lowrank.schemes.fits.fit import fit_schemes

Array = NDArray[Any]
Size = int | str | None


def text_model(
    text: str,
    weights: Mapping[str, Array] | None = None,
    *,
    ir_version: int = 8,
    opset: int = 13,
) -> onnx.ModelProto:
    """Build a model from the text of its graph and the values of its initializers.

    Below IR 4 the initializers are listed among the inputs too, as that IR demands.
    """
    model = parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n{text}')
    add_weights(model, weights or {})
    return model


def add_weights(model: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Append initializers."""
    for name, value in weights.items():
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        model.graph.initializer.append(tensor)
        if model.ir_version < 4:
            model.graph.input.append(
                helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            )


def conv_model(
    weight: Array,
    bias: Array | None = None,
    *,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str | None = None,
    group: int | None = None,
    kernel_shape: Sequence[int] | None = None,
    input_shape: Sequence[Size] | None = None,
    dtype: DTypeLike = np.float32,
    ir_version: int = 8,
    opset: int = 13,
    name: str = "conv",
) -> onnx.ModelProto:
    """Build a model of one Conv, ``x -> y``; attributes that are None are left out.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel)
        Stored as `dtype` in initializer ``w``.
    bias : ndarray, shape (F,), optional
        Stored as `dtype` in initializer ``b``.
    input_shape : sequence of int, str or None
        Shape of ``x``; names and None stand for open sizes. By default a batch size ``N`` and
        9 per axis.
    """
    dtype = np.dtype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    axes = weight.ndim - 2
    given: dict[str, Any] = {
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "auto_pad": auto_pad,
        "group": group,
        "kernel_shape": kernel_shape,
    }
    inputs = ["x", "w"] if bias is None else ["x", "w", "b"]
    node = helper.make_node(
        "Conv", inputs, ["y"], name=name, **{k: v for k, v in given.items() if v is not None}
    )
    shape = input_shape or ("N", weight.shape[1] * (group or 1), *(9,) * axes)
    out = (shape[0], weight.shape[0], *(None,) * axes)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, list(out))],
    )
    model = helper.make_model(
        graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)]
    )
    weights = {"w": weight.astype(dtype)}
    if bias is not None:
        weights["b"] = bias.astype(dtype)
    add_weights(model, weights)
    return model


def run(
    model: onnx.ModelProto | str,
    feeds: Mapping[str, Array],
    *,
    optimise: bool = False,
) -> list[Array]:
    """Run a model, or the file at a path, in onnxruntime on the CPU, by default as it stands."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def initializers(model: onnx.ModelProto) -> dict[str, Array]:
    """Return the values of all initializers by name."""
    return {t.name: np.asarray(numpy_helper.to_array(t)) for t in model.graph.initializer}


def without(model: onnx.ModelProto, *fields: str) -> bytes:
    """Serialise a model without some fields of its graph, to compare all the rest."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for field in fields:
        copy.graph.ClearField(field)
    return bytes(copy.SerializeToString(deterministic=True))


def fit_scheme(scheme: Scheme, weight: NDArray[np.float64], **options: Any) -> Fit:
    """Fit one scheme; the options are those of `fit_schemes`."""
    (fit,) = fit_schemes([scheme], weight, **options)
    return fit
