"""The CUDA ops without a GPU: kernels emulated on the host, on onnxruntime's CPU provider.

Real here: onnxruntime, the registration, the checks of attributes and weights, the plans and the
source of the kernels. Not here: a GPU's compiler, rounding, memory model and streams.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from building import PLAIN, build
from cases import activation, model, window
from cuda_cases import KERNELS, LRNS, TYPES, WINDOWS, Run, check_layers, check_lrn
from ops import convolutions
from ops.low_rank import blocks
from tables import OPS
from test_kernels import layer


@pytest.fixture(autouse=True)
def all_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", "all")


def session(proto: onnx.ModelProto, library: str | None, **kwargs: Any) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for name, value in kwargs.items():
        setattr(options, name, value)
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.fixture
def run(emulated_library: str) -> Run:
    """Give a function that runs a model with the kernels emulated."""
    return lambda proto, x: np.asarray(session(proto, emulated_library).run(None, {"X": x})[0])


@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
@pytest.mark.parametrize("settings", WINDOWS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_emulated_kernels(
    run: Run,
    kernel: tuple[int, ...],
    settings: tuple[int, int, int],
    dtype: Any,
    unit: float,
    tiny: float,
) -> None:
    """What test_cuda.py asks of a GPU, in every case."""
    check_layers(run, dtype, unit, tiny, kernel, settings)


@pytest.mark.parametrize(("dtype", "unit", "tiny"), TYPES)
@pytest.mark.parametrize(("size", "beta"), LRNS)
def test_emulated_lrn(
    run: Run, size: int, beta: float, dtype: Any, unit: float, tiny: float
) -> None:
    check_lrn(run, dtype, unit, tiny, size, beta)


def test_weights_that_are_inputs(emulated_library: str) -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((1, 6, 9, 9)).astype(np.float32)
    for op, inputs, constants, structure in convolutions(rng, (3, 3))[::3]:
        attributes = {**structure, **window((3, 3), 1, 1), **activation()}
        fixed = model(op, inputs, constants, attributes, x.shape)
        free = model(op, inputs, {}, attributes, x.shape)
        for name, value in constants.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            free.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
        (a,) = session(fixed, emulated_library).run(None, {"X": x})
        (b,) = session(free, emulated_library).run(None, {"X": x, **constants})
        np.testing.assert_array_equal(a, b)


def test_statuses_name_op_node_and_shapes(emulated_library: str) -> None:
    op, inputs, constants, structure = convolutions(np.random.default_rng(0), (3, 3))[0]
    attributes = {**structure, **window((3, 3), 1, 0), **activation()}
    proto = model(op, inputs, constants, attributes, (1, 6, 9, 9), function=False)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    opened = session(proto, emulated_library)
    where = r"MonochromaticConv 'layer' on CUDA: X"
    with pytest.raises(Exception, match=rf"{where} has shape \[1,4,9,9\], expected 6 channels"):
        opened.run(None, {"X": np.zeros((1, 4, 9, 9), np.float32)})
    with pytest.raises(Exception, match=rf"{where} of shape \[1,6,2,9\] is smaller than the"):
        opened.run(None, {"X": np.zeros((1, 6, 2, 9), np.float32)})
    constants["bias"] = constants["bias"][:-1]
    with pytest.raises(Exception, match=r"'layer' on CUDA: bias has shape \[5\], expected \[6\]"):
        session(model(op, inputs, constants, attributes, (1, 6, 9, 9)), emulated_library)


def test_a_layer_that_no_block_holds_is_a_status(emulated_library: str) -> None:
    # 3000 channels of T for 4 x 4 pixels: more than the 99 KB of the GPU that is emulated.
    op, inputs, constants, structure = blocks(
        np.random.default_rng(0), depthwise=True, channels=2, filters=2, groups=(1, 1),
        ranks=(3000, 3000), kernel=(3, 3),
    )  # fmt: skip
    attributes = {**structure, **window((3, 3), 1, 1), **activation()}
    opened = session(model(op, inputs, constants, attributes, (1, 2, 9, 9)), emulated_library)
    message = r"CPConv 'layer' on CUDA: X \[1,2,9,9\], Y \[1,2,9,9\]: .*bytes of shared memory"
    with pytest.raises(Exception, match=message):
        opened.run(None, {"X": np.zeros((1, 2, 9, 9), np.float32)})


@pytest.mark.parametrize("chosen", ["", "CPConv", "LRN,Tucker2Conv"])
def test_ops_that_are_not_chosen_are_inlined(
    emulated_library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", chosen)
    kernels = chosen.split(",") if chosen else [op.name for op in OPS.values() if op.on_cuda]
    rng = np.random.default_rng(0)
    protos = [
        layer(p, {**window((3, 3), 1, 1), **activation()}, (1, 6, 9, 9))
        for p in convolutions(rng, (3, 3))[::3]
    ]
    attributes = {"size": 3, "alpha": 0.3, "beta": 0.75, "bias": 1.5}
    protos.append(model("LRN", ["X"], {}, attributes, (1, 6, 9, 9)))
    assert {p.graph.node[0].op_type for p in protos} == set(OPS)
    for proto in protos:
        path = tmp_path / "optimised.onnx"
        session(proto, emulated_library, optimized_model_filepath=str(path))
        left = {
            node.op_type for node in onnx.load(path).graph.node if node.domain == "onnx_lowrank"
        }
        op = proto.graph.node[0].op_type
        assert left == ({op} if op in kernels else set())


def test_an_unknown_op_is_refused(emulated_library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_OPS", "LRN,Conv")
    with pytest.raises(Exception, match="names 'Conv'; known are MonochromaticConv"):
        ort.SessionOptions().register_custom_ops_library(emulated_library)


@pytest.mark.slow
def test_indices_of_the_kernels_on_the_host_not_on_a_gpu(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    target = "cuda_index_tests"
    program = build(tmp_path_factory, "plain", [target], *PLAIN) / target
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    cases, failures = (int(result.stdout.split()[i]) for i in (0, 2))
    assert cases > 5000
    assert failures == 0
