from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_lowrank.errors import OutputError
from onnx_lowrank.store import Store, key_of


def test_entries_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "made/for/it")
    arrays = {"a": np.arange(6.0).reshape(2, 3), "name": np.array("text")}
    store.put_arrays("k", arrays)
    found = store.arrays("k")
    assert found is not None
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    store.put_data("k", {"x": [1, 2.5, None]})
    assert Store(tmp_path / "made/for/it").data("k") == {"x": [1, 2.5, None]}


def test_what_is_missing_or_damaged_counts_as_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.arrays("k") is None
    assert store.data("k") is None
    store.put_arrays("k", {"a": np.arange(1000.0)})
    store.put_data("k", [1])
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1] if path.suffix == ".json" else b"PK\x03\x04")
    assert store.arrays("k") is None
    assert store.data("k") is None


def test_no_pickle_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "k.npz", a=np.array([{}], dtype=object))
    assert Store(tmp_path).arrays("k") is None


def test_keys_tell_parts_apart() -> None:
    keys = {key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of(b"abc", ""), key_of(1, 2)}
    assert len(keys) == 5


def test_an_entry_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_arrays("a", {"x": np.zeros(2)})
    store.drop_arrays("a")
    store.drop_arrays("a")  # it is not there any more
    assert store.arrays("a") is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another"):
        Store(tmp_path / "file/below")
