from __future__ import annotations

import numpy as np
import pytest
from builders import conv_model

from onnx_lowrank.data import open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.fitting.model import Calibration, MetricName
from onnx_lowrank.runtime import model_inputs


def test_a_metric_of_gradients_is_refused_where_nothing_measures_them() -> None:
    model = conv_model(np.ones((4, 3, 3, 3)))
    dataset = open_dataset([{"x": np.ones((2, 3, 9, 9), np.float32)}], model_inputs(model))
    metrics: tuple[MetricName, ...] = ("mahalanobis", "combined")
    for metric in metrics:
        with pytest.raises(DataError, match=f"the metric '{metric}' takes gradients"):
            Calibration(dataset, metric=metric)
