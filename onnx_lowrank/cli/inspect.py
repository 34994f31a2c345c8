"""The command `inspect`."""

from __future__ import annotations

from onnx_lowrank.cli.options import InputShapes, Json, Model, read_shapes
from onnx_lowrank.cli.output import print_json


def inspect(model: Model, input_shape: InputShapes = None, as_json: Json = False) -> None:
    """List the layers, what they cost, and which schemes apply to each."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    rows = api.inspect(model, input_shapes=read_shapes(input_shape))
    if as_json:
        print_json({"version": 1, "layers": [row.to_dict() for row in rows]})
    else:
        tables.print_layers(rows)
