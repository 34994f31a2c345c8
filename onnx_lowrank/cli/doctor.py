"""The command `doctor`."""

from __future__ import annotations

from onnx_lowrank.cli.options import Json, Quiet
from onnx_lowrank.cli.output import print_result


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """Show versions, providers and instruction sets, what is missing and how to get it."""
    from onnx_lowrank.documents import document
    from onnx_lowrank.report import tables
    from onnx_lowrank.runtime.doctor import diagnose

    diagnosis = diagnose()
    print_result(
        lambda: document("doctor", diagnosis.to_dict()),
        lambda: tables.print_diagnosis(diagnosis),
        as_json=as_json,
        quiet=quiet,
    )
