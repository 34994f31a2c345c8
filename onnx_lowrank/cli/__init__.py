"""The command line: parsing and printing; every command is one call of the API.

Results go to stdout, messages to stderr. Exit codes: 0 done and within tolerance, 1 checked and
failed, 2 bad input. Each command is a module of its name.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from onnx_lowrank.cli.bench import bench
from onnx_lowrank.cli.cascade import cascade
from onnx_lowrank.cli.compress import compress
from onnx_lowrank.cli.correct import correct
from onnx_lowrank.cli.cost import cost
from onnx_lowrank.cli.doctor import doctor
from onnx_lowrank.cli.finetune import finetune
from onnx_lowrank.cli.gate import guarded
from onnx_lowrank.cli.inspect import inspect
from onnx_lowrank.cli.profile import profile
from onnx_lowrank.cli.report import report
from onnx_lowrank.cli.sweep import sweep
from onnx_lowrank.cli.verify import verify
from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.text import printable

# The base of all usage errors has no public name in typer.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]

COMMANDS = (
    compress,
    inspect,
    cost,
    verify,
    sweep,
    correct,
    finetune,
    cascade,
    bench,
    profile,
    report,
    doctor,
)

app = typer.Typer(
    name="onnx-lowrank",
    help="Make trained CNNs in ONNX faster by low-rank approximation, and prove it.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command()(guarded(_command))


def main() -> NoReturn:
    """Run the command line; every error is one line on stderr."""
    try:
        code = app(standalone_mode=False)
    except OnnxLowRankError as error:
        _fail(str(error))
    except _USAGE_ERROR as error:
        # Typer says whose check failed, which says nothing to the user.
        said = error.format_message().replace(": Value error, ", ": ").rstrip(".")
        _fail(f"{said}; see 'onnx-lowrank --help'")
    except MemoryError:
        _fail("there is not enough memory; give smaller batches, inputs or models")
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; no result was written", code=130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, *, code: int = 2) -> NoReturn:
    print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(code)
