"""Batches: sizes, padding, types, values; the same in every pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_lowrank.data import Dataset
from onnx_lowrank.data.dataset import Sample, batched_inputs, rows_of
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo


class Listed:
    """Samples from a list."""

    def __init__(self, samples: list[Sample]) -> None:
        self.skipped: list[str] = []
        self._samples = samples

    @property
    def samples(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)


def info(
    shape: tuple[int | str | None, ...] | None, type: str = "float", name: str = "x"
) -> TensorInfo:
    return TensorInfo(name, f"tensor({type})", shape)


def dataset(
    values: list[Any], shape: Any = ("N", 2), type: str = "float", **options: Any
) -> Dataset:
    samples = [Sample({"x": np.asarray(v)}, None, f"sample {i}") for i, v in enumerate(values)]
    return Dataset(Listed(samples), [info(shape, type)], **options)


@given(count=st.integers(1, 30), size=st.integers(1, 12), fixed=st.booleans())
def test_no_sample_is_lost_whatever_the_batch(count: int, size: int, fixed: bool) -> None:
    values = [[i, -i] for i in range(count)]
    data = dataset(values, (size if fixed else "N", 2), batch=None if fixed else size)
    batches = list(data)
    assert sum(b.samples for b in batches) == count == len(data)
    np.testing.assert_array_equal(
        np.concatenate([b.feeds["x"][: b.samples] for b in batches]), values
    )
    for batch in batches:
        assert batch.feeds["x"].dtype == np.float32
        assert len(batch.feeds["x"]) == (size if fixed else batch.samples)
        # What fills up a fixed batch is the last sample again: finite, and within the data's range.
        assert (batch.feeds["x"][batch.samples :] == batch.feeds["x"][batch.samples - 1]).all()


def test_the_models_own_batch_size_wins() -> None:
    data = dataset([[0, 1]] * 5, (1, 2), batch=4)
    assert data.batch == 1
    assert [len(b.feeds["x"]) for b in data] == [1] * 5


def test_samples_of_other_sizes_start_a_new_batch() -> None:
    sizes = [2, 2, 3, 3, 3, 2]
    batches = list(dataset([np.full(s, s) for s in sizes], ("N", None), batch=2))
    assert [b.feeds["x"].shape for b in batches] == [(2, 2), (2, 3), (1, 3), (1, 2)]


def test_constant_inputs_are_fed_as_they_are() -> None:
    inputs = [info((4, 2)), info((3,), name="table"), info((), name="scale")]
    assert batched_inputs(inputs) == {"x": True, "table": False, "scale": False}
    feeds = {"x": np.ones(2), "table": np.arange(3), "scale": np.array(0.5)}
    (batch,) = Dataset(Listed([Sample(feeds, None, "one")]), inputs)
    assert {k: v.shape for k, v in batch.feeds.items()} == {
        "x": (4, 2),
        "table": (3,),
        "scale": (),
    }


def test_labels_belong_to_real_samples_only() -> None:
    samples = [Sample({"x": np.zeros(2)}, i, f"{i}") for i in range(5)]
    batches = list(Dataset(Listed(samples), [info((3, 2))]))
    assert [b.labels.tolist() for b in batches if b.labels is not None] == [[0, 1, 2], [3, 4]]


def test_a_mixture_of_labelled_and_not_is_refused() -> None:
    samples = [Sample({"x": np.zeros(2)}, label, f"{label}") for label in (0, None)]
    with pytest.raises(DataError, match="only one of them has a label"):
        list(Dataset(Listed(samples), [info(("N", 2))]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    with pytest.raises(DataError, match=r"sample 1: NaN or Inf in input 'x'"):
        list(dataset([[0, 1], [0, value]]))


def test_values_that_overflow_the_models_type_are_not_finite() -> None:
    list(dataset([[0, 65504]], type="float16"))
    with pytest.raises(DataError, match="NaN or Inf in input 'x'"):
        list(dataset([[0, 70000]], type="float16"))


@pytest.mark.parametrize("shape", [(3,), (1, 2), ()])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"sample 0: shape .* does not fit input 'x' \[N, 2\]"):
        list(dataset([np.zeros(shape)]))


@pytest.mark.parametrize(
    ("type", "value", "message"),
    [
        ("uint8", [0, 256], "cannot hold its values exactly"),
        ("int64", [0, 0.5], "cannot hold its values exactly"),
        ("bool", [0, 2], "cannot hold its values exactly"),
        ("float", ["a", "b"], "takes tensor.float., but the data are"),
        ("string", [1, 2], "takes tensor.string., but the data are"),
        ("bfloat16", [1, 2], "cannot be fed from numpy"),
    ],
)
def test_values_that_the_models_type_cannot_hold_are_refused(
    type: str, value: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list(dataset([value], type=type))


@pytest.mark.parametrize(
    ("type", "value", "expected"),
    [
        ("uint8", [0.0, 255.0], np.uint8),
        ("int64", np.array([1, 2], np.int8), np.int64),
        ("bool", [0, 1], np.bool_),
        ("float", np.array([1, 2], np.uint8), np.float32),
        ("string", np.array(["a", "bc"]), np.str_),
    ],
)
def test_values_come_in_the_models_type(type: str, value: Any, expected: Any) -> None:
    (batch,) = dataset([value], type=type)
    assert batch.feeds["x"].dtype.type is expected
    np.testing.assert_array_equal(batch.feeds["x"][0], np.asarray(value).astype(expected))


def test_too_few_samples_empty_data_and_silly_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="4 samples were asked for, but there are only 3"):
        dataset([[0, 0]] * 3, limit=4)
    with pytest.raises(DataError, match="the data hold no sample"):
        list(dataset([]))
    with pytest.raises(DataError, match="the batch size is 0"):
        dataset([[0, 0]], batch=0)
    with pytest.raises(DataError, match="samples asked for is 0"):
        dataset([[0, 0]], limit=0)
    with pytest.raises(DataError, match="no inputs"):
        Dataset(Listed([]), [])


def test_a_limit_ends_the_pass() -> None:
    data = dataset([[i, i] for i in range(9)], limit=5, batch=2)
    assert len(data) == 5
    assert [b.samples for b in data] == [2, 2, 1]


def test_rows_of_copies_are_cut_from_outputs() -> None:
    # The table is longer than the batch: it is no sign of how many rows are fed.
    table = np.zeros((9, 2), np.float32)
    samples = [Sample({"x": np.full(2, i), "t": table}, None, f"sample {i}") for i in range(3)]
    inputs = [info((2, 2)), info((9, 2), name="t")]
    first, last = Dataset(Listed(samples), inputs)
    outputs = {"y": np.arange(2), "t": np.arange(9), "s": np.array(1.0)}
    assert [(batch.samples, batch.rows) for batch in (first, last)] == [(2, 2), (1, 2)]
    assert rows_of(inputs, last.feeds) == 2
    for batch, kept in ((first, 2), (last, 1)):
        cut = batch.without_copies(outputs)
        assert [np.size(cut[name]) for name in ("y", "t", "s")] == [kept, 9, 1]
