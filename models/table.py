"""Prints the table of networks of models/README.md: ``python models/table.py``."""

from __future__ import annotations

import sys
from math import prod

import fetch
import numpy as np
import onnx
import onnxruntime as ort

from onnx_lowrank.errors import OnnxLowRankError

# Sizes to use where a network leaves its own open.
SIZES = {"vgg16": (1, 240, 240, 3), "craft": (1, 3, 320, 480)}


def count(model: onnx.ModelProto, size: tuple[int, ...] | None) -> tuple[str, int, int, int]:
    """Return the input shape as text, Convs, fully connected layers and multiply-adds.

    A Conv costs ``C/group * kernel`` multiply-adds for each value of its output, a Gemm or a MatMul
    by a constant matrix one for each weight; biases and all other nodes are not counted. The sizes
    are those that onnxruntime yields: several networks compute theirs at run time.
    """
    weights = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    filters = {tensor.name: prod(tensor.dims[1:]) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    dense = [node.input[1] for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    dense = [name for name in dense if name in weights]

    del model.graph.output[:]
    for node in convs:
        model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    shape = size or tuple(n if isinstance(n, int) else 1 for n in entry.shape)
    outputs = session.run(None, {entry.name: np.zeros(shape, np.float32)})
    macs = sum(out.size * filters[node.input[1]] for out, node in zip(outputs, convs, strict=True))
    macs += sum(weights[name] for name in dense)
    return " x ".join(map(str, shape)), len(convs), len(dense), macs


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
