"""Sessions: what is asked for is what runs, and what goes wrong is said in one line."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.errors import ModelError, OnnxLowRankError, ProviderError
from onnx_lowrank.runtime import (
    available_providers,
    check_provider,
    open_session,
    require_provider,
    session,
)

CUDA = "CUDAExecutionProvider" in available_providers()


def scaling_model(*, ir_version: int = 8, name: str = "scaling") -> onnx.ModelProto:
    """``y = x * w`` with w of shape (3,)."""
    weight = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    if ir_version < 4:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        name,
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weight],
    )
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=opset)


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_session_runs_and_describes_its_model(ir_version: int) -> None:
    opened = open_session(scaling_model(ir_version=ir_version), threads=1)
    assert [(i.name, i.type, i.shape) for i in opened.inputs] == [("x", "tensor(float)", ("N", 3))]
    assert [o.name for o in opened.outputs] == ["y"]
    assert opened.raw.get_providers() == ["CPUExecutionProvider"]
    assert opened.raw.get_session_options().intra_op_num_threads == 1
    np.testing.assert_array_equal(opened.run({"x": X})["y"], X * [1, 2, 3])


def test_a_path_runs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(scaling_model(), path)
    opened = open_session(path, options={"session.intra_op.allow_spinning": "0"})
    np.testing.assert_array_equal(opened.run({"x": X}, ["y"])["y"], X * [1, 2, 3])


def test_strings_as_numpy_holds_them_are_fed() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["t"])],
        "words",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["N"])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    assert open_session(model).run({"s": np.array(["a", "bcd"])})["t"].tolist() == ["a", "bcd"]


def test_threads_and_providers_are_checked() -> None:
    with pytest.raises(OnnxLowRankError, match="threads is 0; give 1 or more"):
        open_session(scaling_model(), threads=0)
    with pytest.raises(ProviderError, match="unknown provider 'tpu'; choose one of cpu, cuda"):
        check_provider("tpu")


@pytest.mark.skipif(CUDA, reason="this onnxruntime has the CUDA provider")
def test_a_missing_provider_names_those_found_and_the_remedy() -> None:
    with pytest.raises(ProviderError) as caught:
        open_session(scaling_model(), provider="cuda")
    message = str(caught.value)
    assert message.startswith("no CUDA provider; found ")
    assert "CPUExecutionProvider" in message
    assert message.endswith("install onnx_lowrank[gpu]")


@pytest.mark.skipif(CUDA, reason="this onnxruntime has the CUDA provider")
def test_a_silent_fallback_to_the_cpu_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # An onnxruntime that lists CUDA but cannot use it opens a CPU session, and says so on stdout.
    import onnxruntime

    said = "Failed to load libcudart.so.13: no such file"
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(said), raising=False)
    monkeypatch.setattr(session, "check_provider", lambda provider: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ProviderError) as caught:
            open_session(scaling_model(), provider="cuda")
    assert f"used CPUExecutionProvider ({said}); check the GPU" in str(caught.value)
    assert capsys.readouterr().out == ""


def lacks_cuda() -> str | None:
    try:
        require_provider("cuda")
    except ProviderError as error:
        return str(error)
    return None


LACKS_CUDA = lacks_cuda()


@pytest.mark.skipif(LACKS_CUDA is not None, reason=f"needs a GPU: {LACKS_CUDA}")
def test_cuda_runs_in_full_float32() -> None:
    opened = open_session(scaling_model(), provider="cuda")
    assert opened.raw.get_providers()[0] == "CUDAExecutionProvider"
    assert opened.raw.get_provider_options()["CUDAExecutionProvider"]["use_tf32"] == "0"
    np.testing.assert_array_equal(opened.run({"x": X})["y"], X * [1, 2, 3])


@pytest.mark.parametrize("module", [None, types.ModuleType("onnxruntime")])
def test_an_absent_or_empty_onnxruntime_names_both_extras(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    with pytest.raises(ProviderError) as caught:
        open_session(scaling_model())
    assert "'onnx_lowrank[cpu]'" in str(caught.value)
    assert "'onnx_lowrank[gpu]'" in str(caught.value)
    assert ("not installed" if module is None else "broken") in str(caught.value)


def test_importing_the_package_does_not_import_onnxruntime() -> None:
    code = (
        "import sys, onnx_lowrank.runtime, onnx_lowrank.data, onnx_lowrank.measure.verification; "
    )
    code += "print('onnxruntime' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize("content", [b"", b"this is no model\n" * 9, None])
def test_what_onnxruntime_cannot_load_is_said_in_one_line(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(scaling_model().SerializeToString()[:-20] if content is None else content)
    with pytest.raises(ModelError, match=r"cannot load .*bad\.onnx: .*; check the model") as caught:
        open_session(path)
    assert "\n" not in str(caught.value)
    assert "[ONNXRuntimeError]" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model at .*; check the path"):
        open_session(tmp_path / "none.onnx")


def test_unknown_ops_and_wrong_inputs_are_model_errors(capfd: pytest.CaptureFixture[str]) -> None:
    model = scaling_model()
    model.graph.node[0].op_type = "NoSuchOp"
    with pytest.raises(ModelError, match=r"cannot load model 'scaling': .*NoSuchOp"):
        open_session(model)
    opened = open_session(scaling_model())
    for feeds in ({"x": X[:, :2]}, {"z": X}, {"x": X.astype(np.int64)}):
        with pytest.raises(ModelError, match="cannot run model 'scaling'") as caught:
            opened.run(feeds)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_kernel_library_is_a_file_or_a_reason() -> None:
    path, reason = session.custom_ops_library()
    assert (path is None) == bool(reason)
    if path is not None:
        assert Path(path).is_file()


def test_a_library_that_was_not_built_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_LIBRARY", "no/such/library.so")
    path, reason = session.custom_ops_library()
    assert path is None
    assert "no/such/library.so" in reason
    assert open_session(scaling_model()).custom_ops is None


def test_a_library_that_does_not_load_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "broken.so"
    path.write_bytes(b"not a shared object")
    monkeypatch.setenv("ONNX_LOWRANK_LIBRARY", str(path))
    with pytest.raises(ProviderError, match=r"cannot load the kernel library .*broken\.so"):
        open_session(scaling_model())
    open_session(scaling_model(), custom_ops=False)


@pytest.mark.slow
def test_a_model_beyond_two_gigabytes_runs() -> None:
    rows = 2**30 // 4 // 64 + 4096
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["a", "x"], ["ya"]),
            helper.make_node("Gather", ["b", "x"], ["yb"]),
            helper.make_node("Add", ["ya", "yb"], ["y"]),
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    weight = np.zeros((rows, 64), np.float32)
    weight[-1] = np.arange(64)
    for name in ("a", "b"):
        # Filled in place: a message of this size cannot be copied.
        tensor = model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT)
        tensor.dims.extend(weight.shape)
        tensor.raw_data = weight.tobytes()
    found = open_session(model).run({"x": np.array([0, rows - 1])})["y"]
    np.testing.assert_array_equal(found, [np.zeros(64), 2 * np.arange(64)])
    # The caller's model is untouched.
    assert [len(t.raw_data) for t in model.graph.initializer] == [rows * 256] * 2
