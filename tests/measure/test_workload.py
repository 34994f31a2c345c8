from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_lowrank.data import DataOptions
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.measure.workload import Workload, batch_of, make_feeds, sqnr_db
from onnx_lowrank.runtime import open_session

Build = Callable[..., onnx.ModelProto]


def test_a_file_keeps_its_name_path_and_size(residual_net: Build, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(residual_net(), path)
    workload = Workload.open(path)
    assert (workload.name, workload.path) == ("net.onnx", path)
    assert workload.file_size == path.stat().st_size
    assert workload.file(tmp_path, "copy") == path


def test_weights_kept_elsewhere_count(residual_net: Build, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(
        residual_net(), path, save_as_external_data=True, location="net.bin", size_threshold=0
    )
    both = path.stat().st_size + (tmp_path / "net.bin").stat().st_size
    assert Workload.open(path).file_size == both


def test_a_model_in_memory_is_written_where_a_file_is_needed(
    residual_net: Build, tmp_path: Path
) -> None:
    workload = Workload.open(residual_net())
    assert (workload.name, workload.path) == ("net", None)
    path = workload.file(tmp_path, "copy")
    assert onnx.load(path) == workload.model


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1), (2, 3)])
def test_another_batch_computes_the_same(residual_net: Build, old: int, new: int) -> None:
    workload = Workload.open(residual_net(old))
    changed = workload.at_batch(new)
    assert changed.path is None
    feeds = make_feeds(changed.model, new, DataOptions(seed=3))
    assert batch_of(changed.model, feeds) == new
    scores = open_session(changed.model, threads=1).run(feeds)["scores"]
    one = open_session(residual_net(1), threads=1)
    for row in range(new):
        alone = one.run({"image": feeds["image"][row : row + 1]})["scores"]
        # Sums of up to 512 float32 products, in another order.
        tolerance = 512 * np.finfo(np.float32).eps * np.abs(scores).max()
        np.testing.assert_allclose(scores[row : row + 1], alone, atol=tolerance)


def test_a_batch_that_is_open_or_not_asked_for(residual_net: Build) -> None:
    free, fixed = Workload.open(residual_net("N")), Workload.open(residual_net(2))
    assert free.at_batch(7) is free
    assert fixed.at_batch(None) is fixed
    assert fixed.at_batch(2) is fixed


def test_a_model_whose_samples_depend_on_each_other_is_refused() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[2,4] x) => (float[2,4] y) {
            total = ReduceSum<keepdims=1>(x)
            y = Mul(x, total)
        }
        """
    )
    with pytest.raises(ModelError, match="does not compute the same at batch 3"):
        Workload.open(model).at_batch(3)


def test_a_model_that_cannot_run_at_another_batch_is_refused() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[2,4] x) => (float[4,2] y) <int64[2] shape = {4, 2}> { y = Reshape(x, shape) }
        """
    )
    with pytest.raises(ModelError, match="export the model with a symbolic one"):
        Workload.open(model).at_batch(3)


def test_feeds_are_those_of_the_batch(residual_net: Build) -> None:
    free = residual_net("N")
    three, five = (
        make_feeds(free, 3, DataOptions(seed=1))["image"],
        make_feeds(free, 5, DataOptions(seed=1))["image"],
    )
    assert three.shape == (3, 3, 32, 32)
    assert three.dtype == np.float32
    np.testing.assert_array_equal(three, five[:3])
    assert make_feeds(free, None, DataOptions())["image"].shape[0] == 1
    assert make_feeds(residual_net(4), None, DataOptions())["image"].shape[0] == 4
    with pytest.raises(DataError, match="takes 4 samples at once, not 3"):
        make_feeds(residual_net(4), 3, DataOptions())


def test_open_sizes_are_given_by_input_shapes() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }
        """
    )
    shapes = {"x": (1, 3, 20, 30)}
    assert make_feeds(model, None, DataOptions(input_shapes=shapes))["x"].shape == (1, 3, 20, 30)
    assert make_feeds(model, 4, DataOptions(input_shapes=shapes))["x"].shape == (4, 3, 20, 30)
    with pytest.raises(DataError, match="--input-shape"):
        make_feeds(model, 4, DataOptions())


def test_feeds_from_data(residual_net: Build, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((6, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    feeds = make_feeds(residual_net("N"), 4, DataOptions(data=tmp_path / "data.npz"))
    assert feeds["image"].shape == (4, 3, 32, 32)
    rows = {row.tobytes() for row in images}
    assert all(row.tobytes() in rows for row in feeds["image"])


def test_sqnr_is_the_least_of_the_common_float_outputs() -> None:
    a = {"x": np.array([3.0, 4.0]), "y": np.array([1.0, 0.0]), "k": np.array([1]), "only": 1}
    b = {"x": np.array([3.0, 4.5]), "y": np.array([1.0, 0.1]), "k": np.array([2])}
    assert sqnr_db(a, b) == pytest.approx(20)  # 10 log10(25 / 0.25) and 10 log10(1 / 0.01)
    assert sqnr_db({"x": a["x"]}, {"x": np.array([3.0, 5.0])}) == pytest.approx(10 * np.log10(25))
    assert sqnr_db({"k": a["k"]}, {"k": b["k"]}) is None
