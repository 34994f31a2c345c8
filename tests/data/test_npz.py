"""Arrays from .npz files, row by row."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

ONE = [TensorInfo("x", "tensor(float)", ("N", 2))]
TWO = [
    TensorInfo("image", "tensor(float)", ("N", 2)),
    TensorInfo("mask", "tensor(bool)", ("N",)),
    TensorInfo("scale", "tensor(float)", ()),
]
X = np.arange(10, dtype=np.float32).reshape(5, 2)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def values(data: Dataset, name: str = "x") -> np.ndarray[Any, Any]:
    return np.concatenate([b.feeds[name][: b.samples] for b in data])


@pytest.mark.parametrize("name", ["x", "arr_0", "whatever"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_single_array_feeds_a_single_input(tmp_path: Path, name: str, compressed: bool) -> None:
    path = tmp_path / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **{name: X, "labels": np.arange(5)})
    data = open_dataset(path, ONE, batch=2)
    for _ in range(2):
        np.testing.assert_array_equal(values(data), X)
        assert [b.labels.tolist() for b in data if b.labels is not None] == [[0, 1], [2, 3], [4]]
    assert len(data) == 5


def test_several_inputs_share_their_samples(tmp_path: Path) -> None:
    mask = np.array([1, 0, 0, 1, 1], bool)
    path = save(tmp_path / "d.npz", image=X, mask=mask, scale=np.float32(2))
    data = open_dataset(path, TWO, batch=3)
    np.testing.assert_array_equal(values(data, "image"), X)
    np.testing.assert_array_equal(values(data, "mask"), mask)
    assert all(b.feeds["scale"] == 2 for b in data)


@pytest.mark.parametrize("dtype", [">f4", "f8", "u1", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_types_and_orders_are_brought_to_the_models(
    tmp_path: Path, dtype: str, order: Any
) -> None:
    path = save(tmp_path / "d.npz", x=np.asarray(X, dtype, order))
    found = values(open_dataset(path, ONE))
    assert found.dtype == np.dtype("float32")
    np.testing.assert_array_equal(found, X)


def test_a_limit_takes_a_seeded_subset_in_order(tmp_path: Path) -> None:
    array = np.arange(100, dtype=np.float32).repeat(2).reshape(100, 2)
    path = save(tmp_path / "d.npz", x=array, labels=np.arange(100))
    data = open_dataset(path, ONE, limit=10, seed=1)
    found = values(data)[:, 0]
    assert len(data) == len(found) == 10
    assert (np.diff(found) > 0).all()
    assert found.max() > 10  # not merely the first ones
    np.testing.assert_array_equal(
        np.concatenate([b.labels for b in data if b.labels is not None]), found
    )
    np.testing.assert_array_equal(found, values(open_dataset(path, ONE, limit=10, seed=1))[:, 0])
    with pytest.raises(DataError, match="101 samples were asked for, but there are only 100"):
        open_dataset(path, ONE, limit=101)


def test_labels_can_have_any_name_or_be_ignored(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=X, labels=np.arange(5), y=np.full((5, 1), 7))
    with pytest.raises(DataError, match=r"array 'y' in .* is neither an input"):
        open_dataset(path, ONE)
    path = save(tmp_path / "d.npz", x=X, y=np.full((5, 1), 7))
    (batch,) = open_dataset(path, ONE, labels_from="y")
    assert batch.labels is not None
    assert batch.labels.tolist() == [7] * 5
    with pytest.raises(DataError, match="no array 'yy' of labels; did you mean 'y'"):
        open_dataset(path, ONE, labels_from="yy")
    path = save(tmp_path / "d.npz", x=X, labels=np.arange(3))
    assert [b.labels for b in open_dataset(path, ONE, labels_from="none")] == [None]
    labels_input = [TensorInfo("labels", "tensor(float)", ("N", 2))]
    path = save(tmp_path / "d.npz", labels=X)
    np.testing.assert_array_equal(values(open_dataset(path, labels_input), "labels"), X)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(4), "there are 5 samples"),
        (np.array([0, 1, -1, 0, 0]), "whole numbers from 0, not -1"),
        (np.zeros(5), "whole numbers from 0, not float64"),
        (np.array(["a"] * 5), "whole numbers from 0"),
        (np.zeros((5, 3), int), "give one class each"),
        (np.full(5, 2**63, np.uint64), "label 9223372036854775808 is larger than"),
        (np.full(5, np.nan), "whole numbers from 0, not float64"),
        (np.array([0, 2**62, -1, 0, -(2**63)]), "not -9223372036854775808"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(save(tmp_path / "d.npz", x=X, labels=labels), ONE)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": X, "scale": 1}, "no array 'mask'"),
        ({"imag": X, "mask": [1] * 5, "scale": 1}, "no array 'image' .*did you mean 'imag'"),
        ({"image": X, "mask": [1] * 4, "scale": 1}, "differ in their number of samples"),
        ({"image": np.float32(1), "mask": [1], "scale": 1}, "has no axis of samples"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(save(tmp_path / "d.npz", **arrays), TWO)


def test_wrong_shapes_and_values_name_the_sample(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.zeros((5, 3)))
    with pytest.raises(DataError, match=r"d\.npz, sample 0: shape \[3\] does not fit input 'x'"):
        values(open_dataset(path, ONE))
    broken = X.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match=r"d\.npz, sample 3: NaN or Inf"):
        values(open_dataset(save(tmp_path / "d.npz", x=broken), ONE))


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="Python objects, which are not loaded"):
        open_dataset(path, ONE)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(b"no zip at all")
    with pytest.raises(DataError, match=r"cannot read .*d\.npz: .*; write it with numpy\.savez"):
        open_dataset(path, ONE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(DataError, match="cannot read"):
        open_dataset(path, ONE)
    save(path, x=np.zeros((4096, 2), np.float32))
    content = bytearray(path.read_bytes())
    content[20000] ^= 255  # within the data: the archive's checksum no longer fits
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot read array 'x'"):
        values(open_dataset(path, ONE))
    with zipfile.ZipFile(save(tmp_path / "whole.npz", x=X)) as whole:
        content = bytearray(whole.read("x.npy")[:-8])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", bytes(content))
    with pytest.raises(DataError, match=r"cannot read array 'x' .* ends within sample 4"):
        values(open_dataset(path, ONE))


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, compressed: bool) -> None:
    inputs = [TensorInfo("x", "tensor(float)", ("N", 1000))]
    path = tmp_path / "d.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=np.zeros((8000, 1000), np.float32))
    data = open_dataset(path, inputs, batch=8)
    tracemalloc.start()
    try:
        assert sum(b.samples for b in data) == 8000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The array takes 32 MB; a pass needs a few batches of 32 kB and the archive's own buffers.
    assert peak < 2e6
