from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.errors import ProviderError
from onnx_lowrank.runtime import available_providers
from onnx_lowrank.runtime.peak import _product, measure_peak
from onnx_lowrank.runtime.runner import OrtRunner


def test_the_peak_and_how_it_was_measured() -> None:
    peak = measure_peak(threads=1)
    # Any machine does a multiply-add in a microsecond, none a thousand in a nanosecond.
    assert 2e-3 < peak.gflops < 2e6
    assert "float32 matrix products 512x512x512 in onnxruntime" in peak.method
    assert peak.to_dict() == {"gflops": peak.gflops, "method": peak.method}


def test_what_is_timed_is_the_whole_product() -> None:
    size = 64
    x = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    runner = OrtRunner(_product(size, np.random.default_rng(0)), {"x": x}, threads=1)
    runner.run()
    weight = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    expected = x.astype(float) @ weight
    tolerance = size * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(runner.outputs()["y"], expected, atol=tolerance)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in available_providers(), reason="onnxruntime has CUDA here"
)
def test_a_missing_provider_is_named() -> None:
    with pytest.raises(ProviderError, match="no CUDA provider"):
        measure_peak(provider="cuda")
