"""Sizes are checked before anything is allocated."""

from __future__ import annotations

import pytest

from onnx_lowrank.data import open_dataset, random_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo, fix_shapes
from onnx_lowrank.runtime.capacity import check_size, largest_array

OPEN = TensorInfo("x", "tensor(float)", ("N", 3, "H", "W"))


def test_the_bound_is_below_the_memory_and_above_what_networks_take() -> None:
    assert 2**26 <= largest_array() <= 2**46
    check_size((8, 3, 224, 224), 4, "images", remedy="none")


@pytest.mark.parametrize(
    ("size", "text"), [(2**20, "12.0 TiB"), (2**30, "12.0 PiB"), (10**400, "over 10^24")]
)
def test_huge_shapes_are_refused_by_their_bytes(size: int, text: str) -> None:
    with pytest.raises(DataError, match="more than the") as caught:
        fix_shapes([OPEN], {"x": (1, 3, size, 2**20)})
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 3, 0, 4), (1, 3, -5, 4), (1, 3, -(10**5000), 4), (1, 3, 4)])
def test_sizes_below_one_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="does not fit input 'x'"):
        fix_shapes([OPEN], {"x": shape})


def test_a_batch_that_the_model_fixes_is_bounded_too() -> None:
    fixed = TensorInfo("x", "tensor(float)", (2**50, 3))
    with pytest.raises(DataError, match=r"12\.0 PiB"):
        random_dataset([fixed], count=1)
    with pytest.raises(DataError, match=r"12\.0 PiB"):
        open_dataset([{"x": [[1.0, 2.0, 3.0]]}], [fixed])


def test_a_batch_asked_for_is_bounded() -> None:
    known = TensorInfo("x", "tensor(float)", ("N", 3000))
    with pytest.raises(DataError, match="the batch size is 1e\\+30; give a number from 1 to"):
        random_dataset([known], count=1, batch=10**30)
    with pytest.raises(DataError, match="give a smaller shape or batch size"):
        random_dataset([known], count=1, batch=2**31 - 1)
