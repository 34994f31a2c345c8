"""What a torch implementation of an op is given besides its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper

from onnx_lowrank.errors import ModelError

Inputs = list[Any]
"""Tensors in the order of the node's inputs; None for one left out."""


@dataclass(frozen=True)
class Context:
    """A node and how it is computed.

    Attributes
    ----------
    node : onnx.NodeProto
        The node.
    opset : int
        Version of the standard operators.
    dtype : torch.dtype
        Takes the place of every floating-point type.
    """

    node: onnx.NodeProto
    opset: int
    dtype: torch.dtype

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute, text as str; `default` if it is left out."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def refuse(self, why: str) -> ModelError:
        """Return the error for a form of the op that is not computed here."""
        name = self.node.name or (self.node.output[0] if self.node.output else "")
        return ModelError(
            f"node '{name}' ({self.node.op_type}) cannot be run in torch: {why}; "
            "leave fine-tuning and gradient metrics out for this model, or replace the node"
        )


Op = Callable[[Inputs, Context], torch.Tensor]
