"""A provider that does not work is found out at once."""

from __future__ import annotations

import importlib

import onnx
import pytest

from onnx_lowrank.errors import ProviderError
from onnx_lowrank.runtime import available_providers, open_session, require_provider, session
from onnx_lowrank.runtime.require import smallest_model


def test_the_cpu_needs_nothing() -> None:
    require_provider("cpu")


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ProviderError, match="unknown provider 'gpu'; choose one of cpu, cuda"):
        require_provider("gpu")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in available_providers(), reason="this onnxruntime has CUDA"
)
def test_a_provider_that_is_listed_but_does_not_load_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with onnxruntime-gpu where there is no GPU."""
    with pytest.raises(ProviderError, match=r"no CUDA provider; .*install onnx_lowrank\[gpu\]"):
        require_provider("cuda")
    # A session that falls back to the CPU by itself, as that of onnxruntime-gpu does.
    ort = importlib.import_module("onnxruntime")
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda model, settings, providers: real(
            model, settings, providers=["CPUExecutionProvider"]
        ),
    )
    monkeypatch.setattr(session, "available_providers", lambda: tuple(session.PROVIDERS.values()))
    with pytest.raises(ProviderError, match=r"used CPUExecutionProvider.*; check the GPU"):
        require_provider("cuda")


def test_the_smallest_model_runs() -> None:
    onnx.checker.check_model(smallest_model(), full_check=True)
    assert [each.name for each in open_session(smallest_model()).outputs] == ["y"]
