from __future__ import annotations

import gc
import pickle
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from onnx_lowrank.cache import Cache, default_folder, key_of
from onnx_lowrank.errors import CacheWarning, OutputError
from onnx_lowrank.files import add_digest


def test_entries_come_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "made/for/it")
    arrays = {"a": np.arange(6.0).reshape(2, 3), "name": np.array("text")}
    cache.put_arrays("k", arrays)
    found = cache.arrays("k", dict)
    assert found is not None
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    cache.put_data("k", {"x": [1, 2.5, None]})
    assert Cache(tmp_path / "made/for/it").data("k", dict) == {"x": [1, 2.5, None]}


def test_what_is_missing_is_no_damage(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.arrays("k", dict) is None
    assert cache.data("k", dict) is None


def damages(content: bytes, other: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    flipped = {
        f"bit {place}": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        for place in range(0, len(content), max(1, len(content) // 50))
    }
    cut = {f"cut {size}": content[:size] for size in (0, 1, 63, 64, 65, middle, len(content) - 1)}
    rest = {"more": content + b" ", "json": b"[1]", "zip": b"PK\x03\x04", "other": other}
    return {**flipped, **cut, **rest, "deep": b"[" * 100_000}


@pytest.mark.parametrize("kind", ["arrays", "data"])
def test_damage_counts_as_missing_and_is_said_once(tmp_path: Path, kind: str) -> None:
    cache = Cache(tmp_path)
    arrays, data = {"a": np.arange(100.0)}, {"x": 1.25}
    for key in ("k", "other"):
        cache.put_arrays(key, arrays)
        cache.put_data(key, data)
    suffix = {"arrays": "npz", "data": "json"}[kind]
    path = tmp_path / f"k.{suffix}"
    # An entry of another key has the same content, and yet is not this one.
    cases = damages(path.read_bytes(), (tmp_path / f"other.{suffix}").read_bytes())
    assert len(cases) > 50
    for name, content in cases.items():
        path.write_bytes(content)
        fresh = Cache(tmp_path)
        read = fresh.arrays if kind == "arrays" else fresh.data
        with pytest.warns(CacheWarning, match="damaged or of another version") as said:
            assert [read("k", dict), read("k", dict)] == [None, None], name
        assert len(said) == 1
        assert read("other", dict) is not None


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, RecursionError])
def test_an_entry_of_another_form_counts_as_missing(tmp_path: Path, error: type[Exception]) -> None:
    def decode(_: object) -> None:
        raise error("another form")

    cache = Cache(tmp_path)
    cache.put_arrays("k", {"a": np.zeros(2)})
    cache.put_data("k", [1])
    with pytest.warns(CacheWarning):
        assert cache.arrays("k", decode) is None
    assert cache.data("k", decode) is None


def test_a_folder_in_its_place_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "k.json").mkdir()
    with pytest.warns(CacheWarning):
        assert Cache(tmp_path).data("k", dict) is None


def test_no_pickle_is_read(tmp_path: Path) -> None:
    with (tmp_path / "k.npz").open("w+b") as file:
        np.savez(file, a=np.array([{}], dtype=object))
        add_digest(file, "k.npz")
    with pytest.warns(CacheWarning):
        assert Cache(tmp_path).arrays("k", dict) is None


def test_keys_tell_parts_apart() -> None:
    keys = {key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of(b"abc", ""), key_of(1, 2)}
    assert len(keys) == 5


def test_an_entry_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put_arrays("a", {"x": np.zeros(2)})
    cache.drop_arrays("a")
    cache.drop_arrays("a")  # it is not there any more
    assert cache.arrays("a", dict) is None
    assert not list(tmp_path.iterdir())


def unwritable(folder: Path, kind: str) -> Path:
    if kind == "below a file":
        folder.write_text("")
        return folder / "below"
    folder.mkdir()
    (folder / "old.json").write_bytes((folder.parent / "sound/old.json").read_bytes())
    if kind == "a name taken":  # of a folder that anyone, root too, finds no room in
        for suffix in ("npz", "json"):
            (folder / f"k.{suffix}" / "full").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("kind", ["below a file", "a name taken"])
def test_without_a_place_to_keep_entries_they_last_as_long_as_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    Cache(tmp_path / "sound").put_data("old", 1.5)
    store = Cache(unwritable(tmp_path / "folder", kind))
    with pytest.warns(CacheWarning, match="keeps nothing more for later ones; free space"):
        store.put_arrays("k", {"a": np.arange(3.0)})
    store.put_data("l", [1])  # and here a warning would be an error
    assert store.data("l", list) == [1]
    assert store.data("old", float) == (1.5 if kind == "a name taken" else None)
    copy = pickle.loads(pickle.dumps(store))  # as of another process
    copy.put_arrays("m", {"b": np.ones(2)})
    found = store.arrays("m", dict)
    assert found is not None
    assert found["b"].tolist() == [1, 1]
    del copy
    gc.collect()
    assert store.data("l", list) == [1]
    store.drop_arrays("m")
    assert store.arrays("m", dict) is None
    del store
    gc.collect()
    assert not list((tmp_path / "scratch").iterdir())


def test_what_only_a_copy_could_not_keep_is_said_by_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file/below")
    pickle.loads(pickle.dumps(cache)).put_data("k", 2.5)
    with pytest.warns(CacheWarning, match="keeps nothing more"):
        assert cache.data("k", float) == 2.5


def test_without_any_place_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file/scratch"))
    with pytest.raises(OutputError, match="free space or choose other folders by TMPDIR and"):
        Cache(tmp_path / "file/below").put_data("k", 1)


def test_a_temporary_folder_goes_with_its_cache() -> None:
    cache = Cache.in_temporary_folder()
    cache.put_arrays("k", {"x": np.zeros(2)})
    folder = cache.folder
    assert [path.name for path in folder.iterdir()] == ["k.npz"]
    del cache
    assert not folder.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="each system has its own rule")
def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONNX_LOWRANK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home/.cache/onnx_lowrank"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg/onnx_lowrank"
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
