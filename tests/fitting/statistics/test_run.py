"""Statistics from models and data: against the layers' own outputs, and every way they can fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import CacheWarning, DataError, PlanError
from onnx_lowrank.fitting.statistics import Sampling, StoredStatistics, calibrate
from onnx_lowrank.graph.layers import find_layers
from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics, RowMoments
from onnx_lowrank.runtime import model_inputs, open_session

LAYERS = ["first", "second", "twin", "deep", "head"]


def network(*, batch: int | str = "N", seed: int = 0, scale: float = 1.0) -> onnx.ModelProto:
    """Conv (strided, asymmetric pads), two Convs of one input, a grouped dilated one, a MatMul."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((4, 3, 3, 3)),
        "w2": rng.standard_normal((6, 4, 3, 3)),
        "w3": rng.standard_normal((2, 4, 3, 3)),
        "w4": rng.standard_normal((4, 3, 3, 1)),
        "w5": rng.standard_normal((4 * 5 * 6, 5)),
        "b1": rng.standard_normal(4),
    }
    weights["w1"] *= scale
    same = {"auto_pad": "SAME_UPPER"}
    nodes = [
        helper.make_node(
            "Conv", ["x", "w1", "b1"], ["y1"], "first", strides=[2, 1], pads=[0, 1, 1, 2]
        ),
        helper.make_node("Relu", ["y1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2"], ["y2"], "second", **same),
        helper.make_node("Conv", ["a1", "w3"], ["y3"], "twin", **same),
        helper.make_node("Relu", ["y2"], ["a2"]),
        helper.make_node(
            "Conv", ["a2", "w4"], ["y4"], "deep", group=2, dilations=[2, 1], pads=[2, 0, 2, 0]
        ),
        helper.make_node("Flatten", ["y4"], ["f"]),
        helper.make_node("MatMul", ["f", "w5"], ["y5"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 11, 5])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, None)
            for n in ("y1", "y2", "y3", "y4", "y5")
        ],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def images(count: int, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.uniform(size=(count, 3, 11, 5)) + rng.uniform(size=(count, 1, 1, 1))).astype("f4")


def data(model: onnx.ModelProto, x: np.ndarray, *, batch: int | None = None) -> Dataset:
    return open_dataset([{"x": x}], model_inputs(model), batch=batch)


def arrays(found: Mapping[str, LayerStatistics]) -> dict[str, dict[str, np.ndarray]]:
    return {name: statistics.to_arrays() for name, statistics in found.items()}


def assert_equal(a: Mapping[str, LayerStatistics], b: Mapping[str, LayerStatistics]) -> None:
    left, right = arrays(a), arrays(b)
    assert list(left) == list(right)
    for layer, values in left.items():
        assert list(values) == list(right[layer])
        for name, value in values.items():
            np.testing.assert_array_equal(value, right[layer][name], err_msg=f"{layer} {name}")


def changed(model: onnx.ModelProto, name: str, value: np.ndarray) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    return copy


OUTPUT = {"first": "y1", "second": "y2", "twin": "y3", "deep": "y4", "head": "y5"}
WEIGHT = {"first": "w1", "second": "w2", "twin": "w3", "deep": "w4", "head": "w5"}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("count", [7, 200])
def test_the_predicted_error_is_the_measured_one(layer: str, count: int) -> None:
    model, x = network(), images(count)
    statistics = calibrate(model, data(model, x), [layer])[layer]
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weight = weights[WEIGHT[layer]]
    direction = np.random.default_rng(2).standard_normal(weight.shape).astype(np.float32)
    perturbed = changed(model, WEIGHT[layer], weight + direction / 8)
    name = OUTPUT[layer]
    before, after = (open_session(m).run({"x": x}, [name])[name] for m in (model, perturbed))
    measured = float(np.sum((after.astype(float) - before) ** 2)) / (before.size / before.shape[1])
    deviation = (weight + direction / 8).astype(np.float64) - weight
    moments = statistics.moments
    if isinstance(moments, RowMoments):
        outputs = np.sqrt(moments.weights)[:, None] * moments.rows @ deviation
        predicted = float(np.sum(outputs**2))
    else:
        deviation = deviation.T if layer == "head" else deviation
        predicted = Covariance(moments.second).squared_norm(deviation)
    assert isinstance(moments, RowMoments) == (layer == "head" and count == 7)
    # The models run in float32: outputs of size |y| are off by 1e-7 |y|, their difference of a
    # tenth by 1e-6 of itself.
    assert predicted == pytest.approx(measured, rel=1e-4)
    assert statistics.images == count


def test_numbers_do_not_depend_on_batches_passes_or_place(tmp_path: Path) -> None:
    model, x = network(), images(12)
    steps: list[tuple[str, int, int]] = []
    found = calibrate(
        model,
        data(model, x),
        LAYERS,
        sampling=Sampling(positions=10),
        progress=lambda *step: steps.append(step),
    )
    assert list(found) == LAYERS
    assert {(step, total) for step, _, total in steps} == {
        ("statistics of layer inputs, pass 1 of 1", 12)
    }
    assert [done for _, done, _ in steps] == [0, 8, 12]
    sampling = Sampling(positions=10)
    assert_equal(
        found, calibrate(model, data(model, x), LAYERS, sampling=sampling, cache_dir=tmp_path)
    )
    steps.clear()
    limited = calibrate(
        model,
        data(model, x, batch=5),
        LAYERS,
        sampling=Sampling(positions=10, memory_limit=60_000),
        progress=lambda *step: steps.append(step),
    )
    assert len({step for step, _, _ in steps}) > 1
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    # Only the batches of the model's own run differ, in whose float32 sums rounding may differ.
    left, right = arrays(found), arrays(limited)
    for layer in LAYERS:
        for name, value in left[layer].items():
            np.testing.assert_allclose(right[layer][name], value, rtol=1e-4, err_msg=name)
    for layer in LAYERS:
        alone = calibrate(model, data(model, x), [layer], sampling=Sampling(positions=10))
        assert_equal({layer: found[layer]}, alone)


def test_several_passes_give_the_same_bits() -> None:
    model, x = network(), images(12)
    found = calibrate(model, data(model, x), LAYERS)
    limited = calibrate(model, data(model, x), LAYERS, sampling=Sampling(memory_limit=260_000))
    assert_equal(found, limited)


def test_positions_are_chosen_by_the_seed() -> None:
    model, x = network(), images(3)
    one, same, other = (
        calibrate(model, data(model, x), ["first"], sampling=sampling)["first"]
        for sampling in (Sampling(positions=4, seed=seed) for seed in (0, 0, 1))
    )
    assert one.samples == 12
    assert isinstance(one.moments, DenseMoments)
    assert isinstance(same.moments, DenseMoments)
    assert isinstance(other.moments, DenseMoments)
    np.testing.assert_array_equal(one.moments.second, same.moments.second)
    assert np.any(one.moments.second != other.moments.second)


def test_layers_of_one_input_and_geometry_share_their_statistics(tmp_path: Path) -> None:
    model = network()
    found = calibrate(model, data(model, images(3)), LAYERS, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(LAYERS) - 1
    assert_equal({"a": found["second"]}, {"a": found["twin"]})


def test_a_fixed_batch_does_not_count_its_filling() -> None:
    free, fixed, x = network(), network(batch=4), images(6)
    assert_equal(
        calibrate(free, data(free, x, batch=4), LAYERS), calibrate(fixed, data(fixed, x), LAYERS)
    )


def test_the_model_is_not_changed() -> None:
    model = network()
    before = model.SerializeToString(deterministic=True)
    calibrate(model, data(model, images(2)), LAYERS)
    assert model.SerializeToString(deterministic=True) == before


def test_a_layer_on_pieces_of_an_image_counts_them_as_its_positions() -> None:
    """A model that cuts every image into two along the first axis."""
    weight = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    shape = np.array([-1, 3, 4, 5], np.int64)
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["pieces"]),
            helper.make_node("Conv", ["pieces", "w"], ["y"], "conv"),
        ],
        "pieces",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3, 4, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(shape, "shape")],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    x = np.random.default_rng(1).standard_normal((3, 2, 3, 4, 5)).astype(np.float32)
    found = calibrate(model, data(model, x), ["conv"])["conv"]
    assert (found.images, found.samples) == (3, 3 * 2 * 12)
    y = open_session(model).run({"x": x})["y"]
    assert isinstance(found.moments, DenseMoments)
    energy = Covariance(found.moments.second).squared_norm(weight.astype(np.float64))
    assert energy == pytest.approx(float(np.sum(y.astype(float) ** 2)) / 72, rel=1e-5)


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_sizes_that_inference_leaves_open_are_measured() -> None:
    """Flattening to a shape of a length that only a run tells hides the size of the head."""
    model = network()
    del model.graph.node[-2]
    constants = {"all": np.array([0, 120, 7]), "two": np.array([1, 1, 0])}
    nodes = [
        helper.make_node("Cast", ["two"], ["chosen"], to=TensorProto.BOOL),
        helper.make_node("Compress", ["all", "chosen"], ["target"], axis=0),
        helper.make_node("Reshape", ["y4", "target"], ["f"]),
    ]
    for node in nodes:
        model.graph.node.insert(len(model.graph.node) - 1, node)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.int64), name))
    head = next(layer for layer in find_layers(model) if layer.name == "head")
    assert head.spec is not None
    assert head.spec.output_size is None
    x = images(4)
    # Four samples of 120 inputs, where a matrix of 120 x 120 would take more than the limit.
    found = calibrate(model, data(model, x), ["head"], sampling=Sampling(memory_limit=60_000))
    assert isinstance(found["head"].moments, RowMoments)
    assert_equal({"head": calibrate(network(), data(network(), x), ["head"])["head"]}, found)


def test_results_are_kept_and_found_again(tmp_path: Path) -> None:
    model, x = network(), images(4)
    found = calibrate(model, data(model, x), LAYERS[:2], cache_dir=tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    before = entries(folder)
    assert len(before) == 2

    def fail(*_: object) -> None:
        raise AssertionError("nothing is left to run")

    again = calibrate(model, data(model, x), LAYERS[:2], cache_dir=folder, progress=fail)
    assert entries(folder) == before
    assert_equal(found, again)
    calibrate(model, data(model, x), LAYERS, cache_dir=folder)
    assert len(entries(folder)) == 4
    assert before.items() <= entries(folder).items()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: calibrate(
            network(scale=2), data(network(), images(4)), ["first"], cache_dir=folder
        ),
        lambda folder: calibrate(
            network(), data(network(), images(4, seed=2)), ["first"], cache_dir=folder
        ),
        lambda folder: calibrate(
            network(),
            data(network(), images(4)),
            ["first"],
            cache_dir=folder,
            sampling=Sampling(positions=3),
        ),
        lambda folder: calibrate(
            network(),
            data(network(), images(4)),
            ["first"],
            cache_dir=folder,
            sampling=Sampling(seed=1),
        ),
    ],
    ids=["model", "data", "positions", "seed"],
)
def test_other_contents_and_settings_are_other_entries(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    calibrate(network(), data(network(), images(4)), ["first"], cache_dir=tmp_path)
    change(tmp_path)
    assert len(entries(tmp_path)) == 2


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def _pickled(path: Path) -> None:
    np.savez(path, counts=np.array([object()], dtype=object))


@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip, _pickled, _array, lambda p: p.write_bytes(b""), lambda p: p.unlink()],
)
def test_damaged_entries_are_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    model, x = network(), images(4)
    found = calibrate(model, data(model, x), ["second"], cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    good = arrays(found)
    damage(path)
    said = pytest.warns(CacheWarning) if path.exists() else nullcontext()
    with said, pytest.raises(DataError, match="calibrate again"):
        found["second"]
    said = pytest.warns(CacheWarning) if path.exists() else nullcontext()
    with said:
        again = calibrate(model, data(model, x), ["second"], cache_dir=tmp_path)
    np.testing.assert_array_equal(arrays(again)["second"]["second"], good["second"]["second"])
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = network()
    found = calibrate(model, data(model, images(2)), ["first"])
    assert len(list(tmp_path.iterdir())) == 1
    assert found["first"].images == 2
    del found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_activations_that_are_not_finite_are_named(tmp_path: Path, bad: float) -> None:
    model = changed(network(), "b1", np.array([0.0, bad, 0.0, 0.0]))
    found = calibrate(model, data(model, images(2)), ["first", "second"], cache_dir=tmp_path)
    assert list(found) == ["first"]
    assert found["first"].images == 2
    with pytest.raises(DataError, match="NaN or Inf in its input 'a1'; check the preprocessing"):
        found["second"]
    assert found.refused.keys() == {"second"}
    assert len(list(tmp_path.iterdir())) == 1


def test_where_no_layer_is_left_the_data_are_not_run_to_their_end() -> None:
    model = changed(network(), "b1", np.array([0.0, np.nan, 0.0, 0.0]))
    steps: list[int] = []
    found = calibrate(
        model,
        data(model, images(8), batch=2),
        ["second"],
        progress=lambda step, done, total: steps.append(done),
    )
    assert (list(found), list(found.refused)) == ([], ["second"])
    assert steps == [0, 2]


def test_too_few_images_are_an_error_before_anything_runs(tmp_path: Path) -> None:
    model = network()
    few = open_dataset([{"x": images(3)}], model_inputs(model), limit=5)
    with pytest.raises(DataError, match="5 samples were asked for, but only 3"):
        calibrate(model, few, ["first"], cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_beyond_the_limit_of_a_pass_has_one_to_itself() -> None:
    model = network()
    steps: set[str] = set()
    found = calibrate(
        model,
        data(model, images(2)),
        ["first", "second"],
        sampling=Sampling(memory_limit=1000),
        progress=lambda step, done, total: steps.add(step),
    )
    assert steps == {f"statistics of layer inputs, pass {n} of 2" for n in (1, 2)}
    assert_equal(found, calibrate(model, data(model, images(2)), ["first", "second"]))


def test_moments_beyond_the_limit_of_a_layer_are_kept_as_samples() -> None:
    """Of 36 inputs in 6 * 5 positions of 9 images, as many as 16 rows of float64 hold."""
    model = network()
    x = images(9)

    def limited(rows: int) -> LayerStatistics:
        sampling = Sampling(layer_limit=rows * 36 * 8)
        return calibrate(model, data(model, x), ["second"], sampling=sampling)["second"]

    found = limited(16)
    assert isinstance(found.moments, RowMoments)
    assert found.moments.rows.shape == (9, 36)  # one position of each image
    dense = calibrate(model, data(model, x), ["second"])["second"].moments
    assert isinstance(dense, DenseMoments)
    few = limited(4)
    assert few.images == len(few.moments.rows) == 4  # evenly spread
    many = limited(35).moments
    assert many.rows.shape == (27, 36)
    # Samples of all images: their mean is near that of all positions.
    spread = np.sqrt(np.diagonal(dense.second[0]) - dense.mean[0] ** 2)
    assert np.abs(many.mean[0] - dense.mean[0]).max() < 4 * spread.max() / np.sqrt(27)


def test_groups_beyond_the_limit_of_a_layer_are_refused_with_their_size() -> None:
    model = network()
    found = calibrate(
        model, data(model, images(2)), ["second", "deep"], sampling=Sampling(layer_limit=800)
    )
    assert list(found) == ["second"]
    assert "take 0.00 GiB, beyond the limit" in found.refused["deep"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("sceond", "no layer is called 'sceond'; did you mean 'second'"),
        ("gemm", "layer 'gemm' cannot be calibrated: .*transA"),
    ],
)
def test_layers_that_cannot_be_calibrated_are_refused(layer: str, message: str) -> None:
    model = network()
    model.graph.node.append(helper.make_node("Gemm", ["f", "t"], ["y6"], "gemm", transA=1))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 3), np.float32), "t"))
    with pytest.raises(PlanError, match=message):
        calibrate(model, data(model, images(2)), [layer])


def test_a_tensor_without_an_axis_of_images_is_refused() -> None:
    model = network()
    model.graph.node.append(helper.make_node("Transpose", ["f"], ["t"]))
    model.graph.node.append(helper.make_node("MatMul", ["t", "w6"], ["y6"], "across"))
    weight = np.ones((7, 2), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w6"))
    found = calibrate(model, data(model, images(7)), ["across", "head"])
    assert list(found) == ["head"]
    with pytest.raises(DataError, match=r"input 't' of shape \[120, 7\] has no axis of 7 images"):
        found["across"]


def test_positions_must_be_positive() -> None:
    with pytest.raises(DataError, match="positions is 0; give 1 or more"):
        calibrate(network(), data(network(), images(2)), ["first"], sampling=Sampling(positions=0))


def test_without_a_folder_that_can_be_made_nothing_is_kept_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model, images_ = network(), images(2)
    expected = calibrate(model, data(model, images_), ["first"])
    with pytest.warns(CacheWarning, match="keeps nothing more for later ones"):
        found = calibrate(model, data(model, images_), ["first"], cache_dir=tmp_path / "file")
    assert_same(found, expected)


def test_a_folder_that_goes_away_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache"

    def remove(step: str, done: int, total: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    model, images_ = network(), images(2)
    expected = calibrate(model, data(model, images_), ["first"])
    found = calibrate(model, data(model, images_), ["first"], cache_dir=folder, progress=remove)
    assert_same(found, expected)
    assert list(folder.iterdir())


def assert_same(found: StoredStatistics, expected: StoredStatistics) -> None:
    for name, array in expected["first"].to_arrays().items():
        assert np.array_equal(found["first"].to_arrays()[name], array), name
