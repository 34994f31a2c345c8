"""Random inputs: reproducible, of the model's shapes and types."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.data import random_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.runtime import TensorInfo

X = TensorInfo("x", "tensor(float)", ("N", 3, 4))


def test_samples_depend_on_the_seed_and_not_on_the_batch() -> None:
    def draw(seed: int, batch: int) -> np.ndarray:
        data = random_dataset([X], count=5, seed=seed, batch=batch)
        return np.concatenate([b.feeds["x"] for b in data])

    np.testing.assert_array_equal(draw(1, 2), draw(1, 5))
    assert draw(1, 2).shape == (5, 3, 4)
    assert (draw(1, 2) != draw(2, 2)).all()
    assert len({row.tobytes() for row in draw(1, 1)}) == 5


def test_every_type_stays_in_its_range() -> None:
    inputs = [
        TensorInfo(t, f"tensor({t})", ("N", 1000))
        for t in ("float", "float16", "uint8", "int64", "bool")
    ]
    (batch,) = random_dataset(inputs, count=2)
    assert {n: v.dtype.name for n, v in batch.feeds.items()} == {
        "float": "float32",
        "float16": "float16",
        "uint8": "uint8",
        "int64": "int64",
        "bool": "bool",
    }
    assert set(np.unique(batch.feeds["int64"])) == {0, 1}
    assert batch.feeds["uint8"].max() > 200
    # 2000 standard normal values: mean and deviation within 5 standard errors of 0 and 1.
    assert abs(batch.feeds["float"].mean()) < 5 / np.sqrt(2000)
    assert abs(batch.feeds["float"].std() - 1) < 5 / np.sqrt(4000)


def test_a_fixed_batch_is_filled_and_constants_are_kept() -> None:
    inputs = [TensorInfo("x", "tensor(float)", (4, 2, 2)), TensorInfo("t", "tensor(float)", (3,))]
    batches = list(random_dataset(inputs, count=6))
    assert [b.samples for b in batches] == [4, 2]
    assert all(b.feeds["x"].shape == (4, 2, 2) for b in batches)
    np.testing.assert_array_equal(batches[0].feeds["t"], batches[1].feeds["t"])
    assert batches[0].feeds["t"].shape == (3,)


def test_open_sizes_are_given_or_asked_for() -> None:
    info = TensorInfo("x", "tensor(float)", ("N", 3, "H", "W"))
    (batch,) = random_dataset([info], count=1, input_shapes={"x": (1, 3, 5, 6)})
    assert batch.feeds["x"].shape == (1, 3, 5, 6)
    for open_info in (info, TensorInfo("x", "tensor(float)", None)):
        with pytest.raises(
            DataError, match=r"leaves open; give them, e.g. --input-shape x=1,3,224,"
        ):
            random_dataset([open_info], count=1)


@pytest.mark.parametrize("type", ["tensor(string)", "tensor(bfloat16)", "seq(tensor(float))"])
def test_types_without_random_values_are_refused(type: str) -> None:
    with pytest.raises(DataError, match="no random data can be made for input 'x'"):
        random_dataset([TensorInfo("x", type, (1, 2))], count=1)


def test_a_shape_is_no_remedy_for_an_optional_input() -> None:
    info = TensorInfo("x", "optional(tensor(float))", None)
    with pytest.raises(DataError, match="no random data can be made for input 'x'"):
        random_dataset([info], count=1)
