"""Local response normalisation as a portable node: kernels do it many times faster."""

from __future__ import annotations

import onnx

from onnx_lowrank.graph.check import element_types
from onnx_lowrank.graph.layers import attribute
from onnx_lowrank.graph.ops import is_op
from onnx_lowrank.rewriting.lowering.functions import DOMAIN, declare_functions
from onnx_lowrank.rewriting.passes.base import PassResult, Refusal

_DEFAULTS = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}  # of the standard op


class PortableLrnPass:
    """Replace every LRN of the main graph by the node of the same name in this domain.

    Refused: those whose input is not known to be float32, the only type of the kernels.
    """

    name = "portable-lrn"

    def run(self, model: onnx.ModelProto) -> PassResult:
        """Rewrite `model` in place."""
        nodes = [node for node in model.graph.node if is_op(node, "LRN")]
        if not nodes:
            return PassResult(modified=False)
        types = element_types(model)
        changes, refusals = [], []
        for node in nodes:
            name = node.name or node.output[0]
            if types.get(node.input[0]) != onnx.TensorProto.FLOAT:
                refusals.append(Refusal(name, "its input is not known to be float32: it stays"))
                continue
            values = {key: float(attribute(node, key, value)) for key, value in _DEFAULTS.items()}
            size = attribute(node, "size", None)
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("size", size))
            node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in values.items())
            node.domain = DOMAIN
            changes.append(f"{name}: replaced by a portable node")
        declare_functions(model)
        return PassResult(bool(changes), tuple(changes), tuple(refusals))
