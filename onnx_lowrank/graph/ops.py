"""Which operator a node is: custom ops and functions share names with standard ones.

This is the one place that compares a node's ``op_type``. Model-local functions that take the name
of a standard operator in its own domain are refused where models are read (`validate`).
"""

from __future__ import annotations

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")  # two spellings of one domain


def standard_op(node: onnx.NodeProto) -> str:
    """Return the name of the standard operator that a node is, or ``""`` if it is none."""
    return str(node.op_type) if node.domain in STANDARD_DOMAINS else ""


def is_op(node: onnx.NodeProto, *names: str, domain: str = "") -> bool:
    """Whether a node is one of these operators.

    Parameters
    ----------
    node : onnx.NodeProto
        Any node.
    *names : str
        Names of operators; none for all of the domain.
    domain : str
        Their domain; the standard one by default.
    """
    known = STANDARD_DOMAINS if domain == "" else (domain,)
    return node.domain in known and (not names or node.op_type in names)
