"""Every op through onnxruntime: the kernels against the function body, for each instruction set."""

from __future__ import annotations

import itertools
import resource
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cases import Parts, activation, model, window
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from ops import convolutions
from ops.low_rank import blocks
from ops.monochromatic import layer as monochromatic
from tables import ISAS as KNOWN
from tables import isas_here

# Both sides sum in float32 over at most a few hundred terms, in three stages, in different orders;
# relative to the largest output the difference stays below 3 stages x sqrt(300) x eps ~ 6e-6.
# Winograd (3x3, stride 1, ranks from 8 on) adds values of up to four inputs before it multiplies:
# twice the error of its stage, which has 160 terms at most here.
TOLERANCE = 6e-6


ISAS = isas_here()


def session(proto: onnx.ModelProto, library: str | None, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def layer(
    parts: Parts, attributes: dict[str, Any], shape: tuple[int, ...], **kwargs: Any
) -> onnx.ModelProto:
    op, inputs, constants, structure = parts
    return model(op, inputs, constants, {**structure, **attributes}, shape, **kwargs)


def agree(proto: onnx.ModelProto, library: str, x: NDArray[np.float32], threads: int = 1) -> None:
    (body,) = session(proto, None).run(None, {"X": x})
    (ours,) = session(proto, library, threads).run(None, {"X": x})
    assert ours.shape == body.shape
    np.testing.assert_allclose(ours, body, rtol=0, atol=TOLERANCE * max(np.abs(body).max(), 1e-3))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 4), (7, 7), (3,), (3, 2, 3)])
@pytest.mark.parametrize(
    ("stride", "pad", "dilation"), list(itertools.product((1, 2, 3), (0, 2), (1, 2)))
)
def test_matches_body(
    library: str,
    monkeypatch: pytest.MonkeyPatch,
    isa: str,
    kernel: tuple[int, ...],
    stride: int,
    pad: int,
    dilation: int,
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    rng = np.random.default_rng(3)
    size = {1: (23,), 2: (14, 19), 3: (5, 6, 9)}[len(kernel)]
    x = rng.standard_normal((2, 6, *size)).astype(np.float32)
    for parts, act in itertools.product(
        convolutions(rng, kernel), (activation(), activation(-0.5, 1.0, 0.1))
    ):
        attributes = {**window(kernel, stride, pad, dilation), **act}
        agree(layer(parts, attributes, x.shape), library, x)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_threads(library: str, threads: int, rows: int) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 6, rows, 40)).astype(np.float32)
    for parts in convolutions(rng, (3, 3)):
        agree(
            layer(parts, {**window((3, 3), 1, 1), **activation(0.0)}, x.shape), library, x, threads
        )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [1, 7, 8, 9, 15, 16, 17, 47, 48, 49, 111, 112, 113])
def test_vector_edges(library: str, monkeypatch: pytest.MonkeyPatch, isa: str, width: int) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 6, 5, width)).astype(np.float32)
    for parts in convolutions(rng, (3, 3)):
        agree(layer(parts, {**window((3, 3), 1, 1), **activation()}, x.shape), library, x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("size", "beta"), [(1, 0.75), (3, 0.5), (5, 0.75), (5, 1.0), (7, 0.3)])
def test_lrn(
    library: str, monkeypatch: pytest.MonkeyPatch, isa: str, size: int, beta: float
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    x = np.random.default_rng(6).standard_normal((2, 13, 9, 11)).astype(np.float32)
    agree(
        model("LRN", ["X"], {}, {"size": size, "alpha": 0.3, "beta": beta, "bias": 1.5}, x.shape),
        library,
        x,
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_shapes(library: str, data: st.DataObject) -> None:
    draw = data.draw
    small = st.integers(1, 4)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    g, h = draw(small), draw(small)
    depthwise, k = draw(st.booleans()), draw(st.integers(1, 20))
    c, f = g * draw(small), h * draw(small)
    shape = (draw(st.integers(1, 2)), c, draw(st.integers(5, 30)), draw(st.integers(5, 60)))
    k1 = k if depthwise else draw(st.integers(1, 20))
    parts = blocks(
        rng, depthwise=depthwise, channels=c, filters=f, groups=(g, h), ranks=(k1, k), kernel=kernel
    )
    x = rng.standard_normal(shape).astype(np.float32)
    attributes = {
        **window(kernel, draw(st.integers(1, 3)), draw(st.integers(0, 3))),
        **activation(),
    }
    agree(layer(parts, attributes, shape), library, x, draw(st.integers(1, 3)))


@pytest.mark.parametrize("kernel", [(3, 3), (3,)])
def test_body_is_valid_and_portable(kernel: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((2, 6, *(9,) * len(kernel))).astype(np.float32)
    for parts in convolutions(rng, kernel):
        proto = layer(parts, {**window(kernel, 2, 1), **activation(-0.5, 1.0, 0.1)}, x.shape)
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        (reference,) = ReferenceEvaluator(proto).run(None, {"X": x})
        (body,) = session(proto, None).run(None, {"X": x})
        np.testing.assert_allclose(reference, body, rtol=0, atol=TOLERANCE * np.abs(body).max())


def test_weights_that_are_inputs(library: str) -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((1, 6, 9, 9)).astype(np.float32)
    for parts in convolutions(rng, (3, 3)):
        op, inputs, constants, structure = parts
        attributes = {**structure, **window((3, 3), 1, 1), **activation()}
        fixed = model(op, inputs, constants, attributes, x.shape)
        free = model(op, inputs, {}, attributes, x.shape)
        for name, value in constants.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            free.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
        (a,) = session(fixed, library).run(None, {"X": x})
        (b,) = session(free, library).run(None, {"X": x, **constants})
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [1]}, "strides, dilations and pads do not fit"),
        ({"strides": [0, 1]}, "must be positive"),
        ({"strides": [2**32, 2**32]}, f"at most {2**31 - 1}; axis 0 has kernel 3, stride {2**32}"),
        ({"pads": [0, 0, 2**31, 0]}, "at most 2147483647"),
        ({"dilations": [2**31 - 1, 1]}, "reach of the kernel at most"),
        ({"blocks": 5}, "blocks is 5, expected 6"),
        ({"max": float("nan")}, "min and max must be numbers"),
        ({"alpha": float("inf")}, "alpha finite"),
        ({"input_groups": 4}, "must divide the channels"),
        ({"middle_order": "reversed"}, "middle_order is not the permutation"),
        ({"output_order": "zeros"}, "output_order is not a permutation"),
        ({"bias": "short"}, r"bias has shape \[11\], expected \[12\]"),
    ],
)
def test_malformed_nodes_are_refused(library: str, change: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(10)
    op, inputs, constants, structure = blocks(
        rng, depthwise=False, channels=6, filters=12, groups=(3, 2), ranks=(4, 5), kernel=(3, 3)
    )
    attributes = {**structure, **window((3, 3), 1, 1), **activation()}
    for key, value in change.items():
        if key not in constants:
            attributes[key] = value
        elif value == "reversed":
            constants[key] = constants[key][::-1].copy()
        else:
            constants[key] = (
                np.zeros_like(constants[key]) if value == "zeros" else constants[key][:-1]
            )
    proto = model(op, inputs, constants, attributes, (1, 6, 9, 9), function=False)
    with pytest.raises(Exception, match=rf"Tucker2Conv 'layer': .*{message}"):
        session(proto, library)


def test_wrong_input_is_a_status(library: str) -> None:
    parts = monochromatic(np.random.default_rng(0), channels=3, filters=4, colours=2, kernel=(3, 3))
    op, inputs, constants, structure = parts
    proto = model(
        op,
        inputs,
        constants,
        {**structure, **window((3, 3), 1, 0), **activation()},
        (1, 3, 9, 9),
        function=False,
    )
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    s = session(proto, library)
    with pytest.raises(Exception, match=r"X has shape \[1,4,9,9\], expected 3 channels"):
        s.run(None, {"X": np.zeros((1, 4, 9, 9), np.float32)})
    with pytest.raises(Exception, match="smaller than the kernel"):
        s.run(None, {"X": np.zeros((1, 3, 2, 9), np.float32)})


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [2**32] * 2}, "strides and dilations must be positive"),
        ({"pads": [20_000] * 4}, "more than 64 times those of X and the kernel"),
        ({"dilations": [2**29] * 2}, r"X of shape \[1,6,9,9\] is smaller than the kernel"),
        ({"pads": [2**31 - 1] * 4}, f"more than {2**36} elements"),
    ],
)
def test_sizes_beyond_bounds_are_statuses(
    library: str, monkeypatch: pytest.MonkeyPatch, isa: str, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    x = np.zeros((1, 6, 9, 9), np.float32)
    for op, inputs, constants, structure in convolutions(np.random.default_rng(0), (3, 3))[::4]:
        attributes = {**structure, **window((3, 3), 1, 1), **activation(), **change}
        with pytest.raises(Exception, match=rf"{op} 'layer': .*{message}"):
            session(model(op, inputs, constants, attributes, x.shape, function=False), library).run(
                None, {"X": x}
            )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("stride", [12, 10**6, 2**31 - 1])
def test_a_stride_beyond_the_image_takes_no_step(
    library: str, monkeypatch: pytest.MonkeyPatch, isa: str, stride: int
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    rng = np.random.default_rng(12)
    x = rng.standard_normal((1, 6, 9, 11)).astype(np.float32)
    for parts in convolutions(rng, (3, 3)):
        agree(layer(parts, {**window((3, 3), stride, 1), **activation()}, x.shape), library, x)


@pytest.mark.parametrize("isa", ISAS)
def test_flat_kernels_of_three_axes(
    library: str, monkeypatch: pytest.MonkeyPatch, isa: str
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    rng = np.random.default_rng(13)
    x = rng.standard_normal((1, 6, 4, 5, 7)).astype(np.float32)
    for kernel in ((1, 1, 1), (1, 3, 3)):
        attributes = {**window(kernel, 1, 0), **activation()}
        for parts in convolutions(rng, kernel):
            agree(layer(parts, attributes, x.shape), library, x)


@pytest.mark.parametrize("isa", ISAS)
def test_nan_goes_through_the_activation(
    library: str, monkeypatch: pytest.MonkeyPatch, isa: str
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    rng = np.random.default_rng(14)
    x = np.full((1, 6, 9, 9), np.nan, np.float32)
    for parts in convolutions(rng, (3, 3)):
        proto = layer(parts, {**window((3, 3), 1, 0), **activation(-1.0, 1.0, 0.1)}, x.shape)
        assert np.isnan(session(proto, library).run(None, {"X": x})[0]).all()


@pytest.mark.parametrize("missing", [0, 1, 4])
def test_a_missing_input_is_a_status(library: str, missing: int) -> None:
    parts = monochromatic(np.random.default_rng(0), channels=3, filters=4, colours=2, kernel=(3, 3))
    op, inputs, constants, structure = parts
    inputs = ["" if i == missing else name for i, name in enumerate(inputs)]
    attributes = {**structure, **window((3, 3), 1, 0), **activation()}
    proto = model(op, inputs, constants, attributes, (1, 3, 9, 9), function=False)
    with pytest.raises(Exception, match="layer"):
        session(proto, library).run(None, {"X": np.zeros((1, 3, 9, 9), np.float32)})


def test_lrn_of_any_size_that_fits(library: str) -> None:
    x = np.random.default_rng(15).standard_normal((1, 5000, 1, 2)).astype(np.float32)

    def lrn(size: int) -> onnx.ModelProto:
        return model("LRN", ["X"], {}, {"size": size, **scale}, x.shape)

    scale = {"alpha": 0.3, "beta": 0.75, "bias": 1.0}
    agree(lrn(4095), library, x)
    with pytest.raises(Exception, match="sums over at most 4096 channels; size is 4097"):
        session(lrn(4097), library).run(None, {"X": x})
    with pytest.raises(Exception, match="size is 9223372036854775807, expected 1 to"):
        session(lrn(2**63 - 1), library)


def test_unknown_isa_is_refused(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", "avx1024")
    with pytest.raises(Exception, match="known are " + ", ".join(KNOWN)):
        ort.SessionOptions().register_custom_ops_library(library)


def test_no_growth(library: str) -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((1, 6, 12, 12)).astype(np.float32)
    sessions = [
        session(layer(parts, {**window((3, 3), 1, 1), **activation()}, x.shape), library, 2)
        for parts in convolutions(rng, (3, 3))[::3]
    ]

    def run(times: int) -> int:
        for s in sessions:
            for _ in range(times):
                s.run(None, {"X": x})
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(500)
    # 10,000 runs of a leak of one 64-byte line each would show as 640 KB.
    assert run(10_000 // len(sessions)) - before < 512
