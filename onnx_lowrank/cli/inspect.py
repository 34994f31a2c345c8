"""The command `inspect`."""

from __future__ import annotations

from onnx_lowrank.cli.options import InputShapes, Json, Model, Quiet, read_shapes
from onnx_lowrank.cli.output import print_result


def inspect(
    model: Model,
    input_shape: InputShapes = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the layers, what they cost, and which schemes apply to each."""
    from onnx_lowrank.documents import document
    from onnx_lowrank.pipelines import inspect as pipeline
    from onnx_lowrank.pipelines.result import inspected
    from onnx_lowrank.report import tables

    rows = pipeline.inspect(model, input_shapes=read_shapes(input_shape))
    print_result(
        lambda: document("inspect", inspected(rows)),
        lambda: tables.print_layers(rows),
        as_json=as_json,
        quiet=quiet,
    )
