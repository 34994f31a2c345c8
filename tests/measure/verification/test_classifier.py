"""One rule of what a classifier's output is, for the verdict, the search and the training."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper, parser

from onnx_lowrank.data import open_dataset
from onnx_lowrank.errors import ModelError
from onnx_lowrank.measure.verification import Tolerance, verify
from onnx_lowrank.measure.verification.classifier import class_outputs, holds_classes
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.runtime.engines import CPU
from onnx_lowrank.search.quality_meter import QualityMeter

CLASSES = [(4,), (4, 1), (4, 1, 1), (4, 1, 1, 1), (1, 4), (1, 1, 4)]
OTHERS = [(1,), (1, 1), (2, 2), (4, 2, 1), (0,)]


@pytest.mark.parametrize("shape", [*CLASSES, *OTHERS])
def test_all_that_ask_get_the_same_answer(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: extra finetune")
    from onnx_lowrank.training.classes import class_output

    classes = shape in CLASSES
    value = np.zeros((3, *shape), np.float32)
    assert holds_classes(value.shape, 3) == classes
    assert class_outputs({"y": value, "n": np.zeros((3, 4), np.int64)}, 3) == ["y"] * classes
    assert class_outputs({"y": value}, 2) == []
    if classes:
        assert class_output({"y": torch.from_numpy(value), "t": torch.zeros(7, 4)}, 3) == "y"
    else:
        with pytest.raises(ModelError, match="of which 0 are one row of class scores"):
            class_output({"y": torch.from_numpy(value)}, 3)
    if 0 in shape:
        return
    count = int(np.prod(shape))
    dims = ",".join(map(str, shape))
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> net (float[N,8] x) => (float[N,{dims}] y) '
        f"<int64[{1 + len(shape)}] to = {{-1,{dims}}}> {{ m = MatMul(x, w)\n y = Reshape(m, to) }}"
    )
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, count)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    x = rng.standard_normal((40, 8)).astype(np.float32)
    labels = (x @ weight).argmax(axis=1) % 4
    data = open_dataset([({"x": x}, labels)], model_inputs(model))
    assert QualityMeter(model, data).has_drop == classes
    report = verify(model, model, data, engines=[CPU], tolerance=Tolerance(max_drop=1))
    assert (report.classifier == "y") == classes
    assert report.passed == classes
    if not classes:
        assert report.failures == (
            "CPU: not measured: accuracy may fall by 1 points, but no output is [N, classes]; "
            "bound --min-sqnr or a --score instead; without a bound, --labels none",
        )
