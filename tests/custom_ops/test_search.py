"""A search within a budget among portable nodes: timed with the kernels, written as nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank import compress_to_budget
from onnx_lowrank.errors import PlanError
from onnx_lowrank.fitting.layer import FitProblem, fit_layer
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.rewriting.forms import PORTABLE
from onnx_lowrank.rewriting.lowering.functions import DOMAIN
from onnx_lowrank.runtime import open_session
from onnx_lowrank.runtime.library import PATH_VARIABLE
from onnx_lowrank.schemes import Monochromatic
from onnx_lowrank.search.candidate import Candidate
from onnx_lowrank.search.settings import SETTINGS
from onnx_lowrank.search.single_layer import replaced, single_layer_model, structure

SIDE, CHANNELS, RANK = 28, 64, 8
NET = f"""
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,3,{SIDE},{SIDE}] image) => (float[N,8] scores) {{
    a = Conv<pads=[1,1,1,1]>(image, w1)
    b = LRN<size=5>(a)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    d = Relu(c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    scores = Gemm(f, w3)
}}
"""

# Where standard ops are all that a scheme has, its layer is no node.
NODES = replace(SETTINGS, left_out=(*SETTINGS.left_out, "spatial"))


@pytest.fixture
def network() -> onnx.ModelProto:
    """A network whose second layer is of low rank but for a little noise."""
    rng = np.random.default_rng(0)
    model = parser.parse_model(NET)
    inner = rng.standard_normal((RANK, RANK, 3, 3))
    sides = rng.standard_normal((2, CHANNELS, RANK)) / np.sqrt(RANK)
    low = np.einsum("fr,rsxy,cs->fcxy", sides[0], inner, sides[1])
    weights = {
        "w1": rng.standard_normal((CHANNELS, 3, 3, 3)),
        "w2": low + 0.01 * rng.standard_normal(low.shape),
        "w3": rng.standard_normal((CHANNELS, 8)),
    }
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    for node, name in zip(model.graph.node, ("conv1", "lrn", "conv2"), strict=False):
        node.name = name
    return model


def images(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    shape = (1, 3, SIDE, SIDE)
    return [{"image": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


@pytest.mark.slow
def test_a_search_among_nodes(
    network: onnx.ModelProto, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, library)
    result = compress_to_budget(
        network,
        Budget(min_sqnr_db=15),
        data=images(24),
        lowering="portable",
        threads=1,
        cache_dir=tmp_path,
        settings=NODES,
    )
    written = result.compressed.model
    nodes = {node.name.split("/")[0]: node for node in written.graph.node if node.domain == DOMAIN}
    assert nodes["lrn"].op_type == "LRN"  # an unasked gain of the rewriting
    assert "conv2" in result.search.plan.chosen
    assert nodes["conv2"].op_type in {"CPConv", "Tucker2Conv"}
    assert not any(node.op_type == "Relu" for node in written.graph.node)  # fused
    assert result.compressed.report.verification is not None
    assert result.compressed.report.verification.passed

    # The kernels ran, and the bodies say the same: sums of 8 x 9 x 64 products of float32.
    feeds = images(1)[0]
    expected = open_session(written, custom_ops=False).run(feeds)["scores"]
    found = open_session(written).run(feeds)["scores"]
    bound = 8 * 9 * 64 * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def test_latencies_of_elsewhere_are_of_standard_ops(network: onnx.ModelProto) -> None:
    from onnx_lowrank.planning.latency import SavedLatencies, Timed

    saved = SavedLatencies(
        model="",
        name="",
        machine={"cpu": "another"},
        provider="cpu",
        threads=1,
        batch=1,
        input_shapes={},
        whole=Timed(1.0, 1.0, 1.0, 1.0),
        assembled=(),
        known={},
    )
    with pytest.raises(PlanError, match="saved latencies are of standard ops"):
        compress_to_budget(
            network, Budget(min_speedup=2), data=images(4), latency=saved, lowering="portable"
        )


def test_which_colour_an_output_sees_is_no_structure(network: onnx.ModelProto) -> None:
    layer = find_layers(network, input_shapes={"image": (1, 3, SIDE, SIDE)})[0]
    single = single_layer_model(network, layer, batch=1)
    digests = set()
    for seed in (0, 1):
        weight = np.random.default_rng(seed).standard_normal((CHANNELS, 3, 3, 3))
        problem = FitProblem(weight, Frobenius(), lambda fitted: None)
        fit = fit_layer("conv1", Monochromatic(C=2), problem, seed=0)
        digests.add(structure(replaced(single, Candidate(fit, PORTABLE))))
    assert len(digests) == 1
