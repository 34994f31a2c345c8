"""float16 and bfloat16 nodes: against float64, and against NumPy's own rounding bit by bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cases import Parts, activation, model, window
from cuda_cases import in_float32
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from ops.low_rank import blocks
from ops.monochromatic import layer as monochromatic

Array = NDArray[Any]

# dtype, unit roundoff, half the spacing of the subnormal numbers
TYPES = [
    pytest.param(np.float16, 2.0**-11, 2.0**-25, id="float16"),
    pytest.param(ml_dtypes.bfloat16, 2.0**-8, 2.0**-134, id="bfloat16"),
]
FLOAT32 = 6e-6  # three float32 stages of at most a few hundred terms, relative to their magnitudes
OPSET = 15  # the first whose bodies have activations of the node's own type
WINDOW = window((3, 3), 2, 1)


def run(proto: onnx.ModelProto, library: str | None, x: Array) -> Array:
    """Run with float32 outside and the model's own type inside: NumPy has no bfloat16."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if library:
        options.register_custom_ops_library(library)
    session = ort.InferenceSession(
        in_float32(proto).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"X": x.astype(np.float32)})[0])


def parts(rng: np.random.Generator) -> list[Parts]:
    out: list[Parts] = [monochromatic(rng, channels=6, filters=12, colours=3, kernel=(3, 3))]
    for depthwise in (False, True):
        out.append(
            blocks(
                rng,
                depthwise=depthwise,
                channels=6,
                filters=12,
                groups=(3, 2),
                ranks=(5, 5),
                kernel=(3, 3),
            )
        )
    return out


def reference(each: Parts, dtype: Any, x: Array) -> tuple[Array, Array]:
    """Return the node in float64 on weights rounded to `dtype`, and the sum of its magnitudes."""
    op, inputs, constants, structure = each
    rounded = {
        k: v.astype(dtype).astype(np.float32) if v.dtype == np.float32 else v
        for k, v in constants.items()
    }
    sizes = {k: np.abs(v) if v.dtype == np.float32 else v for k, v in rounded.items()}
    results = []
    for values, act, data in (
        (rounded, activation(-0.5, 1.0, 0.1), x),
        (sizes, activation(), np.abs(x)),
    ):
        proto = model(
            op,
            inputs,
            values,
            {**structure, **WINDOW, **act},
            x.shape,
            dtype=np.float64,
            opset=OPSET,
        )
        results.append(ReferenceEvaluator(proto).run(None, {"X": data.astype(np.float64)})[0])
    return results[0], results[1]


@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
@pytest.mark.parametrize("threads_rows", [9, 40])
def test_rounds_once(library: str, dtype: Any, unit: float, tiny: float, threads_rows: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 6, threads_rows, 19)).astype(dtype).astype(np.float32)
    for each in parts(rng):
        expected, size = reference(each, dtype, x)
        op, inputs, constants, structure = each
        attributes = {**structure, **WINDOW, **activation(-0.5, 1.0, 0.1)}
        proto = model(op, inputs, constants, attributes, x.shape, function=False, dtype=dtype)
        ours = run(proto, library, x)
        # The activation is a contraction, so the float32 error does not grow; then one rounding.
        bound = unit * np.abs(expected) + tiny + (1 + unit) * FLOAT32 * size
        assert np.all(np.abs(ours - expected) <= bound)


def test_float16_body_rounds_after_each_stage(library: str) -> None:
    rng = np.random.default_rng(2)
    unit, tiny = 2.0**-11, 2.0**-25
    x = rng.standard_normal((2, 6, 9, 19)).astype(np.float16).astype(np.float32)
    for each in parts(rng):
        expected, size = reference(each, np.float16, x)
        op, inputs, constants, structure = each
        attributes = {**structure, **WINDOW, **activation(-0.5, 1.0, 0.1)}
        proto = model(op, inputs, constants, attributes, x.shape, dtype=np.float16, opset=OPSET)
        onnx.checker.check_model(proto, full_check=True)
        # Up to three Convs, Clip's bounds and PRelu's slope: six roundings, each of a value within
        # the sum of magnitudes, and weights that a subnormal would be multiplied with are below 4.
        bound = (6 * unit + FLOAT32) * 1.01 * (size + 1) + 1000 * tiny
        assert np.all(np.abs(run(proto, None, x) - expected) <= bound)
        assert np.all(np.abs(run(proto, library, x) - expected) <= bound)


@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
@pytest.mark.parametrize("bias", [1.0, 3.0, 0.3])
def test_every_number_is_rounded_as_numpy_does(
    library: str, dtype: Any, unit: float, tiny: float, bias: float
) -> None:
    """LRN with alpha 0 and beta 1 is a division by `bias`, exact up to the last rounding."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    x = np.where(np.abs(every) < 1e18, every, 0)  # squares stay finite
    x = x.reshape(1, 1, 256, 256)
    attributes = {"size": 1, "alpha": 0.0, "beta": 1.0, "bias": bias}
    proto = model("LRN", ["X"], {}, attributes, x.shape, function=False, dtype=dtype)
    with np.errstate(over="ignore"):
        expected = (x / np.float32(bias)).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(run(proto, library, x), expected)
    if dtype == np.float16 and bias == 0.3:
        assert np.isinf(expected).any()  # beyond the largest number


@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
def test_nan_stays_nan(library: str, dtype: Any, unit: float, tiny: float) -> None:
    x = np.full((1, 1, 3, 3), np.nan, np.float32)
    attributes = {"size": 1, "alpha": 0.0, "beta": 1.0, "bias": 1.0}
    proto = model("LRN", ["X"], {}, attributes, x.shape, function=False, dtype=dtype)
    assert np.isnan(run(proto, library, x)).all()


@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
def test_malformed_is_a_status(library: str, dtype: Any, unit: float, tiny: float) -> None:
    op, inputs, constants, structure = parts(np.random.default_rng(3))[1]
    attributes = {**structure, **WINDOW, **activation()}
    x = np.zeros((1, 6, 9, 9), np.float32)
    short = {**constants, "bias": constants["bias"][:-1]}
    proto = model(op, inputs, short, attributes, x.shape, function=False, dtype=dtype)
    with pytest.raises(Exception, match=r"Tucker2Conv 'layer': bias has shape \[11\]"):
        run(proto, library, x)
    mixed = model(op, inputs, constants, attributes, x.shape, function=False, dtype=dtype)
    del mixed.graph.initializer[:]
    mixed.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    with pytest.raises(Exception, match="no kernel def matches node inputs"):
        run(mixed, library, x)
