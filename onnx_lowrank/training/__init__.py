"""Gradients of models, and training of what a compression put into them: all that needs torch.

The modules import torch when they are imported; `require_torch` tells first where it is missing.
"""

from __future__ import annotations

from importlib.util import find_spec

from onnx_lowrank.errors import ProviderError


def require_torch() -> None:
    """Raise ProviderError if torch is not installed."""
    if find_spec("torch") is None:
        raise ProviderError("torch is not installed; install onnx_lowrank[finetune]")
