"""Prints the table of networks of models/README.md: ``python models/table.py``."""

from __future__ import annotations

import sys
from math import prod

import fetch
import onnx
from onnx_lowrank.errors import OnnxLowRankError

# Sizes to use where a network leaves its own open.
SIZES = {"vgg16": (1, 240, 240, 3), "craft": (1, 3, 320, 480)}


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    """Return a shape with 1 in place of every size that the model leaves open."""
    return [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]


def count(model: onnx.ModelProto, size: tuple[int, ...] | None) -> tuple[str, int, int, int]:
    """Return the input shape as text, Convs, fully connected layers and multiply-adds.

    A Conv costs ``C/group * kernel`` multiply-adds for each value of its output, a Gemm or a MatMul by
    a constant matrix its inner size; biases and all other nodes are not counted.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for name in node.input[:1] if node.op_type in ("Reshape", "Identity") else []:
            if name in weights:
                weights[node.output[0]] = ()  # a weight that is reshaped: its size comes below
    (entry,) = (value for value in model.graph.input if value.name not in weights)
    shape = list(size) if size else shape_of(entry)
    for axis, length in zip(entry.type.tensor_type.shape.dim, shape, strict=True):
        axis.dim_value = length
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {value.name: shape_of(value) for value in [*graph.value_info, *graph.output]}
    shapes |= {name: list(dims) for name, dims in weights.items() if dims}
    convs = fully = macs = 0
    for node in graph.node:
        if node.op_type == "Conv":
            convs += 1
            macs += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
            fully += 1
            macs += prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return " x ".join(map(str, shape)), convs, fully, macs


def main() -> int:
    """Print the table in Markdown."""
    print("| network | file, MB | input | Convs | FC | MACs, G | IR | opset |")
    print("|---|---|---|---|---|---|---|---|")
    for name in fetch.NETWORKS:
        path = fetch.network(name)
        model = onnx.load(path)
        entry, convs, fully, macs = count(model, SIZES.get(name))
        size = path.stat().st_size / 1e6
        opset = next(item.version for item in model.opset_import if not item.domain)
        row = [f"`{name}`", f"{size:.1f}", entry, convs, fully, f"{macs / 1e9:.3g}"]
        print("|", " | ".join(map(str, [*row, model.ir_version, opset])), "|", flush=True)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except OnnxLowRankError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
