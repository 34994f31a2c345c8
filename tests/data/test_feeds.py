"""Feeds made in Python: iterables, callables, calibration readers."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader

from onnx_lowrank.data import Dataset, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

ONE = [TensorInfo("x", "tensor(float)", ("N", 2))]
TWO = [*ONE, TensorInfo("m", "tensor(int64)", ("N", 1))]
X = np.arange(14, dtype=np.float32).reshape(7, 2)
FEEDS = [{"x": X[:3]}, {"x": X[3:4]}, {"x": X[4:]}]


def values(data: Dataset, name: str = "x") -> np.ndarray[Any, Any]:
    return np.concatenate([b.feeds[name][: b.samples] for b in data])


def labels(data: Dataset) -> list[int]:
    return [int(v) for b in data if b.labels is not None for v in b.labels]


class Reader(CalibrationDataReader):
    """As onnxruntime's own tutorials write it: one pass only."""

    def __init__(self) -> None:
        self.calls = 0
        self._left = iter(FEEDS)

    def get_next(self) -> Any:
        self.calls += 1
        return next(self._left, None)


class RewindingReader(Reader):
    def rewind(self) -> None:
        self._left = iter(FEEDS)


def generator() -> Iterator[dict[str, Any]]:
    yield from FEEDS


class Refuses:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no")


SOURCES = {
    "list": lambda: FEEDS,
    "iterator": generator,
    "callable": lambda: generator,
    "reader": Reader,
    "rewinding reader": RewindingReader,
    "callable that makes readers": lambda: Reader,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_pass_yields_every_sample(kind: str) -> None:
    data = open_dataset(SOURCES[kind](), ONE, batch=2)
    for _ in range(3):
        np.testing.assert_array_equal(values(data), X)
        assert [b.samples for b in data] == [2, 2, 2, 1]
    with pytest.raises(TypeError, match="not known before a pass"):
        len(data)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_broken_off_pass_loses_nothing(kind: str) -> None:
    data = open_dataset(SOURCES[kind](), ONE, batch=1)
    next(iter(data))
    np.testing.assert_array_equal(values(data), X)


def test_a_limit_takes_the_first_samples_and_reads_no_further() -> None:
    reader = Reader()
    data = open_dataset(reader, ONE, limit=4)
    np.testing.assert_array_equal(values(data), X[:4])
    np.testing.assert_array_equal(values(data), X[:4])
    assert reader.calls == 2
    with pytest.raises(DataError, match="8 samples were asked for, but only 7 were found"):
        values(open_dataset(FEEDS, ONE, limit=8))


def test_the_copy_of_a_single_pass_goes_with_its_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = open_dataset(generator(), ONE)
    values(data)
    assert len(list(tmp_path.glob("*/*.npz"))) == 3
    del data
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_labels_come_in_pairs_or_under_their_name() -> None:
    pairs = [(f, np.arange(len(f["x"]))) for f in FEEDS]
    named = [{**f, "labels": y} for f, y in pairs]
    for source in (pairs, named, iter(pairs), iter(named)):
        data = open_dataset(source, ONE)
        assert labels(data) == [0, 1, 2, 0, 0, 1, 2]
        assert labels(data) == [0, 1, 2, 0, 0, 1, 2]
    assert labels(open_dataset(pairs, ONE, labels_from="none")) == []
    assert labels(open_dataset([({"x": X[:1]}, 3)], ONE)) == [3]
    with pytest.raises(DataError, match=r"feed 0: labels have shape .2., but there are 3 samples"):
        values(open_dataset([(FEEDS[0], [0, 1])], ONE))
    with pytest.raises(DataError, match="carry their labels themselves"):
        open_dataset(pairs, ONE, labels_from="y")


def test_several_inputs_and_strings() -> None:
    feeds = [{"x": X[i : i + 1], "m": [[i]]} for i in range(7)]
    data = open_dataset(iter(feeds), TWO, batch=4)
    assert values(data, "m").ravel().tolist() == list(range(7))
    words = [TensorInfo("s", "tensor(string)", ("N",))]
    data = open_dataset(iter([{"s": np.array(["a", "bcd"], object)}]), words)
    assert values(data, "s").tolist() == ["a", "bcd"]


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"y": X}, "feed 0 lacks input 'x'"),
        ({"x": X, "xx": X}, "no input 'xx'; did you mean 'x'"),
        (X, "feed 0 is a ndarray; give a dict"),
        ({"x": np.float32(1)}, "has no axis of samples"),
        ({"x": np.array([{}, {}])}, "holds Python objects"),
        ({"x": [[1, 2], [3]]}, "feed 0, input 'x' does not form an array: ValueError: .*; give"),
        ({"x": None}, "holds Python objects"),
        ({"x": {"x": X}}, "holds Python objects"),
        ({"x": [[10**400, 1]]}, "holds Python objects"),
        ({"x": ["a", "b"]}, "shape .* does not fit"),
        ({"x": [["a", "b"]]}, "takes tensor.float., but the data are <U1; convert them"),
        ({"x": X * 1j}, "but the data are complex"),
        ({"x": np.zeros((1, 2), "M8[s]")}, "but the data are datetime64"),
        ({"x": np.zeros((1,), "f4,f4")}, "shape .* does not fit"),
        ({"x": Refuses()}, "does not form an array: RuntimeError: no; give"),
        ({3: X}, "feed 0 has a key that is a int; name inputs by str"),
        ({}, "lacks input 'x'"),
        (None, "feed 0 is a NoneType"),
        (({"x": X}, [[1], [2, 3]]), "labels do not form an array"),
        (({"x": X}, ["a"] * 7), "whole numbers from 0, not <U1"),
        ({"x": X[:, :1]}, r"feed 0, sample 0: shape \[1\] does not fit input 'x' \[N, 2\]"),
        ({"x": X * np.nan}, "feed 0, sample 0: NaN or Inf in input 'x'"),
        ({"x": X[:0]}, "the data hold no sample"),
    ],
)
def test_feeds_that_do_not_fit_are_named(feed: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(open_dataset([feed], ONE))


def test_inputs_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="differ in their number of samples: 'x' 7, 'm' 1"):
        values(open_dataset([{"x": X, "m": [[1]]}], TWO))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, as a user would write it."""
    name = f"feeds_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "class Made:\n"
        "    @staticmethod\n"
        "    def feeds():\n"
        "        for i in range(3):\n"
        "            yield {'x': np.full((2, 2), i)}\n"
        "def broken():\n"
        "    yield {'x': np.zeros((1, 2))}\n"
        "    raise KeyError('gone')\n"
        "def number():\n"
        "    return 3\n"
        "constant = 3\n"
        "def leaves():\n"
        "    raise SystemExit(0)\n"
        "def leaves_later():\n"
        "    yield {'x': np.zeros((1, 2))}\n"
        "    raise SystemExit\n"
        "class Speechless(Exception):\n"
        "    def __str__(self):\n"
        "        raise ValueError\n"
        "def speechless():\n"
        "    raise Speechless\n"
        "def ragged():\n"
        "    return [{'x': [[1], [2, 3]]}]\n"
    )
    monkeypatch.chdir(tmp_path)
    return name


def test_a_named_callable_is_called_for_each_pass(module: str) -> None:
    path = list(sys.path)
    data = open_dataset(f"{module}:Made.feeds", ONE)
    for _ in range(2):
        assert values(data)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "failed: KeyError: 'gone'; repair it"),
        ("leaves", "failed: SystemExit: 0; repair it"),
        ("leaves_later", "failed: SystemExit; repair it"),
        ("speechless", "failed: Speechless; repair it"),
        ("ragged", "does not form an array"),
        ("none", "cannot load .*AttributeError"),
        ("constant", "is not callable"),
        ("number", "returned a int; it should return an iterable"),
    ],
)
def test_what_goes_wrong_in_a_named_callable_is_a_data_error(
    module: str, name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        values(open_dataset(f"{module}:{name}", ONE))


def test_a_module_that_is_not_there_is_a_data_error() -> None:
    with pytest.raises(DataError, match="cannot load 'no_such_module:feeds'"):
        open_dataset("no_such_module:feeds", ONE)


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "import sys; sys.path.clear(); x = 1 / 0"])
def test_a_module_that_does_not_come_through_its_import_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    name = f"leaves_{abs(hash((tmp_path, body)))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(DataError, match=r"cannot load .*(SystemExit: 0|ZeroDivisionError)"):
        open_dataset(f"{name}:feeds", ONE)


def test_an_interrupt_of_the_user_is_no_error_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted_feeds.py").write_text("def feeds():\n    raise KeyboardInterrupt\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        values(open_dataset("interrupted_feeds:feeds", ONE))


def test_without_a_working_directory_modules_are_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(DataError, match="cannot load 'no_such_module:feeds'"):
        open_dataset("no_such_module:feeds", ONE)


def test_what_an_iterable_raises_is_a_data_error() -> None:
    def broken() -> Iterator[Any]:
        yield FEEDS[0]
        raise ZeroDivisionError("here")

    for source in (broken, broken()):
        with pytest.raises(DataError, match="the source of data failed: ZeroDivisionError: here"):
            values(open_dataset(source, ONE))


@pytest.mark.parametrize(
    "texts",
    [np.array(["\ud800"]), np.array([b"\xff"]), np.array([0x110000], "<u4").view("<U1")],
)
def test_text_that_is_none_is_refused(texts: Any) -> None:
    words = [TensorInfo("s", "tensor(string)", ("N",))]
    with pytest.raises(DataError, match="takes text, but the data are not"):
        list(open_dataset([{"s": texts}], words))
