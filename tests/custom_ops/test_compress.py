"""A compressed model through the package's own sessions: with kernels, and by its bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnx_lowrank
from onnx_lowrank.errors import PlanError
from onnx_lowrank.pipelines.profile import profile
from onnx_lowrank.runtime import open_session
from onnx_lowrank.runtime.library import PATH_VARIABLE

PLAN = ["c0=mono:C=4", "c1=bicluster-svd:G=2,H=2,K1=5,K2=6", "c2=bicluster-outer:G=4,H=2,K=3"]


def network(seed: int = 0) -> onnx.ModelProto:
    """Three Convs, their activations, an LRN, and a classifier."""
    rng = np.random.default_rng(seed)
    shapes = {"w0": (16, 3, 5, 5), "w1": (24, 16, 3, 3), "w2": (32, 24, 3, 3), "w3": (10, 32)}
    weights = {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    weights["b1"] = rng.standard_normal(24).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a0"], name="c0", strides=[2, 2]),
        helper.make_node("Relu", ["a0"], ["r0"], name="r0"),
        helper.make_node("LRN", ["r0"], ["n0"], name="n0", size=5, alpha=0.1),
        helper.make_node("Conv", ["n0", "w1", "b1"], ["a1"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["a1"], ["r1"], name="r1", alpha=0.1),
        helper.make_node("Conv", ["r1", "w2"], ["a2"], name="c2", dilations=[2, 2]),
        helper.make_node("GlobalAveragePool", ["a2"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 33, 29])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def compress(lowering: Any) -> onnx.ModelProto:
    return onnx_lowrank.compress(network(), plan=PLAN, verification=False, lowering=lowering).model


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.domain == "onnx_lowrank"]


def run(model: onnx.ModelProto, *, custom_ops: bool) -> NDArray[np.float32]:
    x = np.random.default_rng(5).standard_normal((2, 3, 33, 29)).astype(np.float32)
    session = open_session(model, threads=1, custom_ops=custom_ops)
    assert (session.custom_ops is not None) == custom_ops
    return np.asarray(session.run({"x": x})["y"])


def test_kernels_bodies_and_standard_ops_agree(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, library)
    portable = compress("portable")
    assert ops(portable) == ["MonochromaticConv", "LRN", "Tucker2Conv", "CPConv"]
    assert "Relu" not in {n.op_type for n in portable.graph.node}
    expected = run(compress("standard"), custom_ops=False)
    # Ten stages of sums of up to 400 float32 products: 10 x sqrt(400) x eps of the largest output.
    bound = 10 * 20 * np.finfo(np.float32).eps * np.abs(expected).max()
    for custom_ops in (True, False):
        np.testing.assert_allclose(
            run(portable, custom_ops=custom_ops), expected, rtol=0, atol=bound
        )


def test_kernels_really_run(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its bodies the model runs with the library, and with nothing else."""
    monkeypatch.setenv(PATH_VARIABLE, library)
    portable = compress("portable")
    expected = run(portable, custom_ops=True)
    del portable.functions[:]
    np.testing.assert_array_equal(run(portable, custom_ops=True), expected)
    with pytest.raises(Exception, match="onnx_lowrank"):
        open_session(portable, custom_ops=False)


def test_auto_is_portable_where_the_library_loads(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, library)
    assert compress("auto") == compress("portable")
    monkeypatch.setenv(PATH_VARIABLE, "no/library.so")
    assert compress("auto") == compress("standard")
    assert ops(compress("portable"))  # portable models are written without the library too


def test_verification_and_profile_use_the_kernels(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, library)
    portable = compress("portable")
    del portable.functions[:]  # nothing but the kernels can run these nodes
    standard = compress("standard")
    report = onnx_lowrank.verify(standard, portable, limit=4)
    assert report.passed
    found = profile(portable, runs=3).to_dict()
    assert {"CPConv", "Tucker2Conv", "MonochromaticConv"} <= set(_values(found))


def _values(tree: Any) -> set[str]:
    """Return all texts in JSON-like data."""
    if isinstance(tree, dict):
        return set().union(*map(_values, tree.values())) | set(tree)
    if isinstance(tree, list | tuple):
        return set().union(*map(_values, tree))
    return {tree} if isinstance(tree, str) else set()


def test_the_doctor_knows_the_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, library)
    found = onnx_lowrank.diagnose()
    assert found.custom_ops == library
    assert not any("kernel library" in each["what"] for each in found.missing)
    monkeypatch.setenv(PATH_VARIABLE, "no/library.so")
    found = onnx_lowrank.diagnose()
    assert found.custom_ops is None
    assert any("kernel library" in each["what"] for each in found.missing)


def test_an_unknown_lowering_is_refused() -> None:
    with pytest.raises(PlanError, match="there is no form 'fast'"):
        compress("fast")
