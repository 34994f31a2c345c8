"""Models by others: those of the onnx package, of onnxruntime, and what torch exports."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

SEED = 0
# Ops whose second and later inputs are weights in networks; in onnx's tests they are inputs.
WEIGHTED = {
    *("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"),
    *("ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"),
}


class Named(NamedTuple):
    """A model and where it comes from."""

    name: str
    model: onnx.ModelProto


def node_models() -> Iterator[Named]:
    """Yield onnx's test models of single ops, and those with weights as constants too.

    The values of the constants are those of the tests' own inputs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        yield Named(f"node/{case.name}", case.model)
        nodes = case.model.graph.node
        if any(node.op_type in WEIGHTED for node in nodes) and case.data_sets:
            frozen = _frozen(case.model, list(case.data_sets[0][0]))
            if frozen is not None:
                yield Named(f"node/{case.name}/constant", frozen)


def _frozen(model: onnx.ModelProto, values: list[Any]) -> onnx.ModelProto | None:
    """Return a copy with all inputs but the first as initializers; None where one is no tensor."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inputs = list(copy.graph.input)
    if len(values) != len(inputs) or len(inputs) < 2:
        return None
    for info, value in zip(inputs[1:], values[1:], strict=True):
        if not isinstance(value, np.ndarray | np.generic):
            return None
        copy.graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
    del copy.graph.input[1:]
    return copy


def wheel_models() -> Iterator[Named]:
    """Yield the model files inside the onnx and onnxruntime packages, and onnx's small networks."""
    import onnxruntime

    data = Path(onnx.__file__).parent / "backend/test/data"
    for folder in (data, Path(onnxruntime.__file__).parent / "datasets"):
        for path in sorted(folder.rglob("*.onnx")):
            yield Named(str(path.relative_to(folder.parent)), onnx.load(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.model import collect_testcases

        for case in collect_testcases():
            if case.model is not None:
                yield Named(f"model/{case.name}", case.model)


def torch_models(opsets: tuple[int, ...], *, dynamo: bool) -> Iterator[Named]:
    """Yield small torch networks exported to each opset that the exporter can write.

    Parameters
    ----------
    opsets : tuple of int
        Versions of the standard ops.
    dynamo : bool
        Whether by the exporter of torch.export, or by that of TorchScript.
    """
    import torch

    logging.disable(logging.CRITICAL)
    for name, (make, shape) in torch_networks().items():
        torch.manual_seed(SEED)
        network = make().eval()
        kind = next(network.parameters()).dtype
        example = torch.randn(*shape, dtype=kind)
        for opset in opsets:
            exported = _export(network, example, opset, dynamo=dynamo)
            if exported is not None:
                kind = "export" if dynamo else "script"
                yield Named(f"torch/{kind}/{opset}/{name}", exported)


def _export(network: Any, example: Any, opset: int, *, dynamo: bool) -> onnx.ModelProto | None:
    import torch

    buffer = io.BytesIO()
    sink = io.StringIO()
    options: dict[str, Any] = {"dynamo": False, "dynamic_axes": {"x": {0: "N"}}}
    if dynamo:
        options = {"dynamo": True, "verbose": False}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.suppress(Exception),
    ):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(sink):
            program = torch.onnx.export(
                network,
                (example,),
                None if dynamo else buffer,
                opset_version=opset,
                input_names=["x"],
                output_names=["y"],
                **options,
            )
        return program.model_proto if dynamo else onnx.load_from_string(buffer.getvalue())
    return None


def torch_networks() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """Return small networks of the kinds that people export, each with the shape of an input."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(8, 8, 3, padding=1, bias=False)
            self.b = nn.BatchNorm2d(8)
            self.c = nn.Conv2d(8, 8, 1)

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.c(torch.relu(self.b(self.a(x)))))

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(8, 16, 1)
            self.inner = nn.Conv2d(8, 8, 3, padding=1)
            self.last = nn.Conv2d(24, 8, 1)

        def forward(self, x: Any) -> Any:
            a, b = torch.chunk(nn.functional.silu(self.first(x)), 2, 1)
            c = nn.functional.silu(self.inner(b))
            return self.last(torch.cat([a, b, c], 1))

    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(8, 8, 1, groups=2)
            self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)

        def forward(self, x: Any) -> Any:
            y = self.a(x)
            n, c, h, w = y.shape
            y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return self.b(y)

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return self.conv(torch.relu(self.conv(x)))

    class Excite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)

        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            s = torch.sigmoid(self.up(torch.relu(self.down(y.mean((2, 3))))))
            return y * s[:, :, None, None]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(x).chunk(3, -1)
            return self.out(torch.softmax(q @ k.transpose(1, 2) / 4, -1) @ v)

    def classifier(*layers: Any, width: int) -> Any:
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))

    image, small = (2, 8, 12, 12), (2, 8, 10, 10)
    return {
        "conv": (lambda: nn.Conv2d(8, 12, 3), image),
        "conv_same": (lambda: nn.Conv2d(8, 12, 3, padding="same"), image),
        "conv_strided": (lambda: nn.Conv2d(8, 12, (5, 3), (2, 1), (2, 1)), image),
        "conv_dilated": (lambda: nn.Conv2d(8, 12, 3, dilation=2, padding=2), image),
        "conv_grouped": (lambda: nn.Conv2d(8, 12, 3, groups=4), image),
        "conv_reflect": (lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), image),
        "conv1d": (lambda: nn.Sequential(nn.Conv1d(8, 12, 5), nn.ReLU()), (2, 8, 20)),
        "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 6, 3), nn.ReLU()), (2, 4, 6, 6, 6)),
        "transposed": (lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1), image),
        "linear": (lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)), (3, 12)),
        "linear_rows": (lambda: nn.Linear(12, 16), (2, 7, 12)),
        "classifier": (
            lambda: classifier(
                *(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(2)), width=16
            ),
            image,
        ),
        "separable": (
            lambda: classifier(
                *(nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(), nn.Conv2d(8, 16, 1)), width=16
            ),
            image,
        ),
        "residual": (Residual, image),
        "split": (Split, image),
        "shuffle": (Shuffle, small),
        "shared": (Shared, image),
        "excite": (Excite, image),
        "attention": (Attention, (2, 6, 16)),
        "upsample": (
            lambda: nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3)
            ),
            image,
        ),
        "norms": (
            lambda: nn.Sequential(
                *(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.GELU()),
                *(nn.Conv2d(8, 8, 1), nn.InstanceNorm2d(8), nn.LeakyReLU(0.1)),
            ),
            image,
        ),
        "lrn": (
            lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.LocalResponseNorm(3), nn.ReLU()),
            image,
        ),
        "double": (lambda: nn.Conv2d(8, 12, 3).double(), image),
    }


def float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose float32 tensors, inputs and outputs are float16."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del copy.graph.value_info[:]
    return copy


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose weights of at least three axes are int8 behind DequantizeLinear."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for tensor in list(copy.graph.initializer):
        value = numpy_helper.to_array(tensor)
        if value.ndim < 3 or value.dtype != np.float32:
            continue
        scale = np.float32(np.abs(value).max() / 127 or 1)
        stored, name = f"{tensor.name}.int8", tensor.name
        quantum = np.rint(value / scale).astype(np.int8)
        copy.graph.initializer.remove(tensor)
        copy.graph.initializer.append(numpy_helper.from_array(quantum, stored))
        copy.graph.initializer.append(numpy_helper.from_array(scale, f"{stored}.scale"))
        nodes.append(helper.make_node("DequantizeLinear", [stored, f"{stored}.scale"], [name]))
    for place, node in enumerate(nodes):
        copy.graph.node.insert(place, node)
    return copy
