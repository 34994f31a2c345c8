"""Which files a command may write."""

from __future__ import annotations

import os
from collections.abc import Sequence

from onnx_lowrank.files import Input, Output, check_outputs
from onnx_lowrank.graph.external import data_files


def check_files(outputs: Sequence[Output], inputs: Sequence[Input]) -> None:
    """Raise OutputError where a file cannot be written, or is an input or another output.

    What holds the weights of a model among the inputs is an input too.
    """
    weights = []
    if any(output.writes or os.path.exists(output.path) for output in outputs):
        weights = [
            Input(f"holds the weights of {source.path}", file)
            for source in inputs
            if os.path.isfile(source.path)
            for file in data_files(source.path)
        ]
    check_outputs(outputs, [*inputs, *weights])
