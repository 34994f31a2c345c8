"""Statistics survive as arrays, and what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.metrics.moments import DenseMoments, LayerStatistics, RowMoments

DENSE = DenseMoments(mean=np.ones((2, 3)), second=np.ones((2, 3, 3)))
PAIR = DenseMoments(
    mean=np.ones((1, 2)),
    second=np.ones((1, 2, 2)),
    original_mean=np.zeros((1, 2)),
    drift=np.zeros((1, 5, 2)),
)
ROWS = RowMoments(rows=np.ones((2, 5)), weights=np.full(2, 0.5))


@pytest.mark.parametrize("moments", [DENSE, PAIR, ROWS])
def test_arrays_are_read_back(moments: DenseMoments | RowMoments) -> None:
    before = LayerStatistics(
        images=4,
        samples=9,
        intensity=0.1,
        centred_intensity=0.7,
        mean_intensity=0.2,
        moments=moments,
    )
    after = LayerStatistics.from_arrays(before.to_arrays())
    assert type(after.moments) is type(moments)
    assert (after.images, after.samples) == (4, 9)
    assert (after.intensity, after.centred_intensity, after.mean_intensity) == (0.1, 0.7, 0.2)
    for name in vars(moments):
        np.testing.assert_array_equal(getattr(after.moments, name), getattr(moments, name))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"counts": np.array([1, 2, 3])},
        {"intensities": np.zeros(2)},
        {"second": np.ones((2, 3, 4))},
        {"second": np.ones((2, 3, 3), np.float32)},
        {"drift": np.ones((2, 3, 3))},
        {"drift": np.ones((2, 3, 4)), "original_mean": np.ones((2, 3))},
        {"rows": np.ones((2, 3))},
        {"more": np.ones(1)},
    ],
)
def test_other_arrays_are_refused(change: dict[str, np.ndarray | None]) -> None:
    statistics = LayerStatistics(
        images=1,
        samples=1,
        intensity=0.0,
        centred_intensity=0.0,
        mean_intensity=0.0,
        moments=DENSE,
    )
    arrays = {**statistics.to_arrays(), **change}
    with pytest.raises(ValueError, match="no statistics of a layer"):
        LayerStatistics.from_arrays({k: v for k, v in arrays.items() if v is not None})
