"""Whether a provider works here, found out before the work and not in the middle of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from onnx_lowrank.runtime.session import check_provider, open_session

if TYPE_CHECKING:
    import onnx


def require_provider(provider: str) -> None:
    """Raise unless sessions run on `provider` on this machine.

    That onnxruntime was built with CUDA says nothing of a GPU, a driver or libraries: the smallest
    model is loaded there. What was written or computed before a refusal would be lost.

    Parameters
    ----------
    provider : str
        "cpu" or "cuda".

    Raises
    ------
    ProviderError
        It is unknown, missing or does not work; the message names the remedy.
    """
    check_provider(provider)
    if provider != "cpu":
        open_session(smallest_model(), provider=cast("Any", provider), custom_ops=False)


def smallest_model() -> onnx.ModelProto:
    """Return a model of one Relu of one number."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "smallest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
