"""A scheme that is added from the outside is one like the others, everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import text_model
from conformance import cases
from counting import latencies

from onnx_lowrank import compress, compress_to_budget, inspect
from onnx_lowrank.errors import SchemeError
from onnx_lowrank.planning.budget import Budget
from onnx_lowrank.schemes import SCHEMES, Factors, SchemeSpec
from onnx_lowrank.search.settings import SETTINGS, RankSteps

sys.path.insert(0, str(Path(__file__).parent))  # where processes that fit find the scheme

from tensor_train import TensorTrain, TrainFactors

C, F, RANKS = 32, 64, (24, 16)


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    with pytest.raises(SchemeError, match="there is no scheme 'train'"):
        SchemeSpec.parse("train:R1=24,R2=16")
    with SCHEMES.adding(TensorTrain):
        yield
    assert "train" not in SCHEMES.names


def network() -> onnx.ModelProto:
    """A layer that is a train but for noise, which any other scheme needs more operations for."""
    rng = np.random.default_rng(0)
    cores = [(RANKS[0], C, 3), (RANKS[1], RANKS[0], 3), (F, RANKS[1])]
    weight = TrainFactors(*(rng.standard_normal(shape) for shape in cores)).reconstruct()
    weight += 1e-3 * weight.std() * rng.standard_normal(weight.shape)
    weight /= weight.std() * np.sqrt(9 * C)
    model = text_model(
        f"""net (float[N,{C},12,12] x) => (float[N,{F}] y) {{
            a = Conv<pads=[1,1,1,1]>(x, w, b)
            r = Relu(a)
            m = GlobalAveragePool(r)
            y = Flatten(m)
        }}""",
        {"w": weight.astype(np.float32), "b": np.ones(F, np.float32)},
    )
    model.graph.node[0].name = "conv"
    return model


@pytest.mark.parametrize("check", cases([TensorTrain]))
def test_it_passes_the_conformance_suite(check: Callable[[], None]) -> None:
    check()


def test_inspect_lists_it_and_a_plan_may_ask_for_it() -> None:
    model = network()
    (row,) = inspect(model)
    assert row.schemes[-1] == "train"
    result = compress(model, plan=["conv=train:R1=24,R2=16"])
    (factors,) = (fit.factors for fit in result.report.fits.values())
    assert isinstance(factors, TrainFactors)
    assert [node.op_type for node in result.model.graph.node[:3]] == ["Conv"] * 3
    verified = result.report.verification
    assert verified is not None
    (seen,) = verified.results.values()
    # Noise of 1e-3 of the weights: 60 dB, less what the mean over positions gains.
    assert seen.outputs[0]["sqnr_db"] > 40
    with pytest.raises(SchemeError, match="write train:R1=,R2="):
        SchemeSpec.parse("train:R=3")


@dataclass(frozen=True)
class Unwritten(Factors):
    """A structure for which no function is registered that writes it."""

    values: np.ndarray

    def reconstruct(self) -> np.ndarray:
        return self.values

    def multilinear(self) -> None:
        return None


class Strange(TensorTrain):
    name = "strange"
    structures = (Unwritten,)

    def fit(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("it is fitted")


def test_one_that_cannot_be_written_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    model = network()
    data = [{"x": np.zeros((1, C, 12, 12), np.float32)}] * 8
    reason = "strange cannot be written: Unwritten have no chain of standard ops; register"
    with SCHEMES.adding(Strange):
        with pytest.raises(SchemeError, match=reason):
            compress(model, plan=["conv=strange:R1=24,R2=16"])
        with pytest.raises(SchemeError, match=reason):
            compress_to_budget(model, Budget(min_sqnr_db=35.0), data=data, cache_dir=tmp_path)
        assert compress(model, plan=["conv=train:R1=24,R2=16"]).plan.chosen


def test_percentages_and_shares_of_the_operations_are_its_own() -> None:
    (row,) = inspect(network())
    conv = row.layer.spec
    assert conv is not None
    assert SchemeSpec.parse("train:R1=25%,R2=25%").resolve(conv).spec == "train:R1=24,R2=16"
    scheme = SchemeSpec.parse("train:macs=0.25").resolve(conv)
    assert (scheme.macs(conv) or 0) <= 0.25 * (conv.macs or 0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_finds_it_where_it_is_the_best(tmp_path: Path, jobs: int) -> None:
    # Fewer steps: among them are the ranks at which channel and spatial are exact here too.
    steps = {"cp": RankSteps((0.13,))}
    settings = replace(SETTINGS, shares=(0.42, 0.32, 0.24, 0.13), rank_steps=steps)
    model = network()
    samples = np.random.default_rng(1).standard_normal((40, C, 12, 12)).astype(np.float32)
    data = [{"x": sample[None]} for sample in samples]
    # A machine whose time is its multiply-adds, of which a train of these ranks needs the fewest.
    table = latencies(model, settings=settings)
    options: dict[str, Any] = {"data": data, "latency": table, "cache_dir": tmp_path}
    options |= {"jobs": jobs, "settings": settings}
    for _ in range(2):  # from its own fits, and from stored ones
        result = compress_to_budget(model, Budget(min_sqnr_db=35.0), **options)
        assert result.passed, result.failures
        (chosen,) = result.compressed.plan.chosen.values()
        assert chosen.spec == "train:R1=24,R2=16"
