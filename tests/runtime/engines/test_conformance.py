"""Every engine computes what onnxruntime does on the CPU; what it cannot do is one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_lowrank.errors import ModelError, OnnxLowRankError, ProviderError
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import CPU, ENGINES, Engine, open_engine

Build = Callable[..., onnx.ModelProto]
Feeds = dict[str, np.ndarray]
EPS = float(np.finfo(np.float32).eps)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
# Inputs: integers, a scalar, and one that nothing reads. Outputs: of several types, and of a size
# that only a run tells.
MIXED = """
net (float[N,4] x, int64[N] i, float scale, float[N] unread)
    => (float[N,4] y, int64[N] z, bool[N] large, float[M,4] rows, int32[N] small)
{
    one = Constant<value_ints=[1]>()
    scaled = Mul(x, scale)
    y = Softmax(scaled)
    z = Add(i, one)
    large = Greater(i, one)
    places = NonZero(large)
    axis = Constant<value_ints=[0]>()
    found = Squeeze(places, axis)
    rows = Gather(x, found)
    small = Cast<to=6>(i)
}
"""
BROKEN = "net (float[1,3,4,4] x) => (float[1,2,4,4] y) { y = Conv(x, w) }"


def why_not(engine: Engine) -> str | None:
    try:
        engine.require()
    except ProviderError as error:
        return str(error)
    return None


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Give each engine, on one thread; skip where it does not work."""
    found: Engine = request.param
    if reason := why_not(found):
        pytest.skip(reason)
    return found.with_threads(1)


def mixed(samples: int) -> tuple[onnx.ModelProto, Feeds]:
    rng = np.random.default_rng(samples)
    feeds: Feeds = {
        "x": rng.standard_normal((samples, 4)).astype(np.float32),
        "i": rng.integers(0, samples, samples),
        "scale": np.array(0.5, np.float32),
        "unread": np.zeros(samples, np.float32),
    }
    return parser.parse_model(HEAD + MIXED), feeds


def image(samples: int) -> Feeds:
    rng = np.random.default_rng(samples)
    return {"image": rng.standard_normal((samples, 3, 32, 32)).astype(np.float32)}


def check(found: dict[str, Any], expected: dict[str, Any], terms: int) -> None:
    """Compare outputs: floats within the rounding of sums of `terms` products, in any order."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        if value.dtype.kind == "f":
            tolerance = terms * EPS * np.abs(value).max(initial=0)
            np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance)
        else:
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_network_of_any_batch(engine: Engine, residual_net: Build, samples: int) -> None:
    model, feeds = residual_net("N"), image(samples)
    expected = CPU.load(model).run(feeds)
    check(engine.load(model).run(feeds), expected, terms=512)
    runner = engine.runner(model, feeds)
    runner.run()
    check(runner.outputs(), expected, terms=512)


def test_one_loaded_model_takes_batches_of_several_sizes(
    engine: Engine, residual_net: Build
) -> None:
    model = residual_net("N")
    loaded, reference = engine.load(model), CPU.load(model)
    for samples in (4, 1, 4):
        check(loaded.run(image(samples)), reference.run(image(samples)), terms=512)


@pytest.mark.parametrize("samples", [2, 5])
def test_several_inputs_and_outputs(engine: Engine, samples: int) -> None:
    model, feeds = mixed(samples)
    expected = CPU.load(model).run(feeds)
    loaded = engine.load(model)
    check(loaded.run(feeds), expected, terms=8)
    assert list(loaded.run(feeds, ["z", "y"])) == ["z", "y"]
    runner = engine.runner(model, feeds)
    runner.run()
    check(runner.outputs(), expected, terms=8)


def test_what_a_loaded_model_says_of_itself(engine: Engine) -> None:
    model, _ = mixed(2)
    loaded, reference = engine.load(model), CPU.load(model)
    for ours, theirs in ((loaded.inputs, reference.inputs), (loaded.outputs, reference.outputs)):
        assert [(i.name, i.type) for i in ours] == [(i.name, i.type) for i in theirs]
    assert [i.name for i in loaded.inputs] == [i.name for i in model_inputs(model)]


def test_a_path_is_the_same_as_a_model(engine: Engine, residual_net: Build, tmp_path: Path) -> None:
    """With its weights beside it, as those of large models are."""
    model, feeds = residual_net("N"), image(2)
    path = tmp_path / "net.onnx"
    apart = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(apart, path, save_as_external_data=True, size_threshold=0)
    expected = engine.load(model).run(feeds)
    check(engine.load(path).run(feeds), expected, terms=512)
    runner = engine.runner(path, feeds)
    runner.run()
    check(runner.outputs(), expected, terms=512)


def test_a_runner_runs_again_and_its_outputs_are_copies(
    engine: Engine, residual_net: Build
) -> None:
    runner = engine.runner(residual_net(), image(1))
    runner.run()
    first = runner.outputs()["scores"]
    kept = first.copy()
    first[:] = 7
    runner.run()
    np.testing.assert_array_equal(runner.outputs()["scores"], kept)


def test_a_model_that_cannot_be_loaded_is_one_line(engine: Engine, tmp_path: Path) -> None:
    broken = parser.parse_model(HEAD + BROKEN)  # its weight is nowhere
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    for model in (broken, path, tmp_path / "none.onnx"):
        for load in (engine.load, lambda m: engine.runner(m, {"x": np.zeros((1, 3, 4, 4), "f")})):
            with pytest.raises(ModelError, match=r"; ") as caught:
                load(model)
            assert "\n" not in str(caught.value)


def test_inputs_that_do_not_fit_are_one_line(engine: Engine) -> None:
    model, feeds = mixed(2)
    loaded = engine.load(model)
    for wrong in (
        {**feeds, "x": np.zeros((2, 5), np.float32)},
        {**feeds, "x": np.zeros((2, 4), np.float64)},
        {name: value for name, value in feeds.items() if name != "i"},
    ):
        with pytest.raises(ModelError, match="check that the inputs fit") as caught:
            loaded.run(wrong)
        assert "\n" not in str(caught.value)
    check(loaded.run(feeds), CPU.load(model).run(feeds), terms=8)  # nothing is left of them


def test_threads_are_part_of_the_settings(engine: Engine) -> None:
    assert engine.threads == 1
    found = {engine.with_threads(n).settings for n in (1, 2, None)}
    assert len(found) == 3
    assert engine.settings == engine.with_threads(1).settings
    assert engine.with_threads(2).threads == 2
    others = {other.with_threads(1).settings for other in ENGINES if not why_not(other)}
    assert len(others) == sum(1 for other in ENGINES if not why_not(other))


def test_it_is_data(engine: Engine) -> None:
    """As a process of its own takes it, which measures memory."""
    assert pickle.loads(pickle.dumps(engine)) == engine
    assert engine.name == engine.name.lower()
    assert engine.device in ("cpu", "cuda")
    assert engine.version[0].isdecimal()


def test_portable_nodes_run_or_are_refused(engine: Engine) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'
        "net (float[N,4] x) => (float[N,4] y) { y = local.Twice(x) }\n"
        '<domain: "local", opset_import: ["" : 17]>\n'
        "Twice (a) => (b) { b = Add(a, a) }"
    )
    ones = np.ones((2, 4), np.float32)
    if engine.functions:
        check(engine.load(model).run({"x": ones}), {"y": 2 * ones}, terms=1)
    else:
        with pytest.raises(ModelError, match=r"Twice"):
            engine.load(model)


def test_an_engine_is_found_by_its_name() -> None:
    assert ENGINES.names == ("cpu", "cuda", "openvino")
    assert open_engine("cpu", 3) == CPU.with_threads(3)
    with pytest.raises(ProviderError, match="unknown engine 'gpu'; choose one of cpu, cuda, openv"):
        open_engine("gpu")
    with pytest.raises(OnnxLowRankError, match="threads is 0; give a number from 1"):
        open_engine("cpu", 0)
