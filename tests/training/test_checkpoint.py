"""What is written is read again bit for bit; damage is told, and a failure leaves no mess."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnx_lowrank.errors import DataError, OutputError
from onnx_lowrank.training.checkpoint import State, read_checkpoint, write_checkpoint


def state() -> State:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [(3, 2), (4,), ()] * 5]
    return State(
        values=arrays,
        best=[2 * value for value in arrays],
        optimiser={"0.step": np.array(7.0, np.float32), "0.exp_avg": arrays[0]},
        notes={"epoch": 2, "history": [{"loss": 1.5, "accuracy": None}]},
    )


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    assert read_checkpoint(path, "a run") is None
    write_checkpoint(path, State([], []), "a run")
    write_checkpoint(path, state(), "a run")
    assert list(tmp_path.iterdir()) == [path]
    found, expected = read_checkpoint(path, "a run"), state()
    assert found is not None
    assert found.notes == expected.notes
    pairs = [
        *zip(found.values, expected.values, strict=True),
        *zip(found.best, expected.best, strict=True),
        *((found.optimiser[key], expected.optimiser[key]) for key in expected.optimiser),
    ]
    for one, two in pairs:
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        np.testing.assert_array_equal(one, two)
    with pytest.raises(DataError, match=r"run\.npz is of other models, data or settings"):
        read_checkpoint(path, "another run")


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    write_checkpoint(path, state(), "a run")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:300] + bytes(each ^ 255 for each in whole[300:340]) + whole[340:]
    for damaged in (b"", b"text", whole[:middle], whole[:-30], flipped):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read the checkpoint .*; remove it"):
            read_checkpoint(path, "a run")
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        read_checkpoint(path, "a run")
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        read_checkpoint(path, "a run")


def test_no_pickle_is_in_it_or_loaded(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    write_checkpoint(path, state(), "a run")
    with zipfile.ZipFile(path) as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    np.savez(path, notes=np.array([{"run": "a run"}], dtype=object))
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        read_checkpoint(path, "a run")


def test_a_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.npz"
    write_checkpoint(path, state(), "a run")
    before = path.read_bytes()

    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="left on device; free space or choose another --ch"):
        write_checkpoint(path, state(), "a run")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
