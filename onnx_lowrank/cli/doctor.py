"""The command `doctor`."""

from __future__ import annotations

from onnx_lowrank.cli.options import Json
from onnx_lowrank.cli.output import print_json


def doctor(as_json: Json = False) -> None:
    """Show versions, providers and instruction sets, what is missing and how to get it."""
    from onnx_lowrank import api
    from onnx_lowrank.report import tables

    diagnosis = api.diagnose()
    if as_json:
        print_json(diagnosis.to_dict())
    else:
        tables.print_diagnosis(diagnosis)
