"""A form from the outside: the dense layer as columns of its windows and one matrix product."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import conv_model, text_model
from conformance.forms import check_form
from numpy.typing import NDArray

from onnx_lowrank import Budget, compress, compress_to_budget, inspect
from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.errors import PlanError
from onnx_lowrank.graph.subgraph_builder import SubgraphBuilder
from onnx_lowrank.planning.latency import Timed
from onnx_lowrank.rewriting.forms import FORMS
from onnx_lowrank.rewriting.passes.base import Pass
from onnx_lowrank.schemes.base import Factors
from onnx_lowrank.schemes.dense import DenseFactors
from onnx_lowrank.search.latency_source import Group, InNetwork, Timings


class Im2Col:
    """Windows as channels by a Conv of ones and zeros, then a matrix product over them."""

    name = "im2col"
    plain = False
    kernels = False

    def refusal(self, structure: type[Factors], conv: ConvSpec, dtype: np.dtype[Any]) -> str | None:
        del dtype
        if structure is not DenseFactors:
            return "it is for the dense layer"
        if len(conv.kernel) != 2 or conv.group != 1:
            return "it is for Convs of two axes in one group"
        return None

    def lower(
        self,
        factors: Factors,
        conv: ConvSpec,
        bias: NDArray[np.float64] | None,
        builder: SubgraphBuilder,
    ) -> None:
        assert isinstance(factors, DenseFactors)
        taps = int(np.prod(factors.weight.shape[1:]))
        windows = np.eye(taps).reshape(taps, *factors.weight.shape[1:])
        x = builder.conv(builder.input, windows, window=conv.window, name="windows")
        x = builder.node("Transpose", [x], {"perm": [0, 2, 3, 1]}, name="columns")
        x = builder.matmul(x, factors.weight.reshape(-1, taps), name="product")
        if bias is not None:
            x = builder.node("Add", [x, builder.constant(bias, "bias")], name="sum")
        builder.output(builder.node("Transpose", [x], {"perm": [0, 3, 1, 2]}, name="back"))

    def passes(self) -> Sequence[Pass]:
        return ()


IM2COL = Im2Col()


@pytest.fixture
def im2col() -> Iterator[Im2Col]:
    with FORMS.adding(IM2COL):
        yield IM2COL


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((16, 3, 3, 3)) / 5,
        "w2": rng.standard_normal((16, 16, 3, 3)) / 12,
        "w3": rng.standard_normal((16, 5)),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    return text_model(
        """
        net (float[N,3,12,12] x) => (float[N,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1)
            b = Relu(a)
            c = Conv<pads=[1,1,1,1]>(b, w2)
            d = GlobalAveragePool(c)
            e = Flatten(d)
            y = MatMul(e, w3)
        }
        """,
        weights,
    )


def names(model: onnx.ModelProto) -> tuple[str, str]:
    first, second = (layer.layer.name for layer in inspect(model)[:2])
    return first, second


class Fast:
    """A machine on which that form takes half the time, and low rank is slow."""

    batch: int | None = None

    def roughly(self, groups: Sequence[Group], *, progress: Any) -> list[Timings]:
        del progress
        ratio = {"im2col": 0.5}
        return [
            (
                Timed(1e-3, 1, 1, 1),
                {
                    place: Timed(1e-3 * r, r, r, r)
                    for place, r in enumerate(ratio.get(form, 0.9) for _, form in group.kinds)
                },
            )
            for group in groups
        ]

    def precisely(self, group: Group, places: Sequence[int]) -> dict[int, Timed]:
        del group, places
        return {}

    def in_network(self, networks: Any, feeds: Any, layers: Any, sizes: Any) -> InNetwork:
        del networks, feeds, sizes
        return InNetwork(4e-3, 4e-3, (1e-3,) * len(layers), ((False, False),) * len(layers))

    def models(
        self,
        models: Sequence[onnx.ModelProto],
        feeds: Any,
        predicted: Sequence[float],
        *,
        precisely: bool,
    ) -> list[Timed]:
        del models, feeds, precisely
        return [Timed(4e-3 * ratio, ratio, ratio, ratio) for ratio in predicted]


def test_it_conforms(im2col: Im2Col) -> None:
    check_form(im2col)


def test_inspect_lists_it(im2col: Im2Col) -> None:
    first, second, last = inspect(network())
    assert im2col.name in first.forms
    assert im2col.name in second.forms
    assert im2col.name not in last.forms


@pytest.mark.usefixtures("im2col")
def test_a_plan_names_it(tmp_path: Path) -> None:
    model = network()
    first, second = names(model)
    result = compress(model, plan=[f"{first}=dense@im2col", f"{second}=cp:R=8"])
    report = result.report.verification
    assert report is not None
    ops = [node.op_type for node in result.model.graph.node]
    assert ops.count("Transpose") == 2
    # As it is read back from a file.
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(result.plan.to_dict()))
    assert "dense@im2col" in path.read_text()
    assert compress(model, plan=path).model == result.model
    # The layer itself is computed exactly.
    alone = compress(model, plan=[f"{first}=dense@im2col"]).report.verification
    assert alone is not None
    assert alone.passed


@pytest.mark.usefixtures("im2col")
def test_what_it_does_not_serve_is_said_before_any_fit() -> None:
    model = network()
    first, _ = names(model)
    with pytest.raises(PlanError, match=f"{first}' cannot take cp:R=8@im2col: it is for the dense"):
        compress(model, plan=[f"{first}=cp:R=8@im2col"])
    grouped = conv_model(np.ones((4, 1, 3, 3)), None, group=4)
    (layer,) = inspect(grouped)
    with pytest.raises(PlanError, match=r"no layer is replaced .*in one group"):
        compress(grouped, plan=["*=dense@im2col"])
    assert "im2col" not in layer.forms


def test_without_it_the_name_is_unknown() -> None:
    with pytest.raises(PlanError, match="there is no form 'im2col'; choose one of standard"):
        compress(network(), plan=["*=dense@im2col"])


def test_a_search_chooses_it_where_it_is_the_fastest(im2col: Im2Col, tmp_path: Path) -> None:
    model = network()
    rng = np.random.default_rng(1)
    data = [{"x": rng.standard_normal((4, 3, 12, 12)).astype(np.float32)} for _ in range(12)]
    result = compress_to_budget(
        model, Budget(min_sqnr_db=40), data=data, cache_dir=tmp_path, latency=Fast()
    )
    assert result.passed, result.failures
    first, second = names(model)
    chosen = {name: each.spec for name, each in result.search.chosen.items()}
    assert chosen == {first: "dense@im2col", second: "dense@im2col"}
    assert result.search.latency.ratio == pytest.approx(1 - 2 * 0.5e-3 / 4e-3)
    assert result.search.quality.sqnr_db > 100
    assert set(result.compressed.plan.forms.values()) == {im2col.name}
    again = compress(model, plan=result.compressed.plan, verification=False)
    assert again.model == result.compressed.model
