"""The commands, and how arguments become a call of one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import onnx_lowrank
from onnx_lowrank.cli.bench import bench
from onnx_lowrank.cli.cascade import cascade
from onnx_lowrank.cli.compress import compress
from onnx_lowrank.cli.correct import correct
from onnx_lowrank.cli.cost import cost
from onnx_lowrank.cli.doctor import doctor
from onnx_lowrank.cli.finetune import finetune
from onnx_lowrank.cli.gate import guarded
from onnx_lowrank.cli.inspect import inspect
from onnx_lowrank.cli.output import noted
from onnx_lowrank.cli.profile import profile
from onnx_lowrank.cli.report import report
from onnx_lowrank.cli.sweep import sweep
from onnx_lowrank.cli.verify import verify
from onnx_lowrank.errors import UsageError

# The base of all usage errors has no public name in typer.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]

COMMANDS: tuple[Callable[..., int | None], ...] = (
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
    app.command()(noted(guarded(_command)))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"onnx-lowrank {onnx_lowrank.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Raises
    ------
    UsageError
        The arguments are wrong.
    """
    command = typer.main.get_command(app)
    # Not by calling it: that answers a closed pipe and an interruption in ways of its own.
    try:
        with command.make_context(str(app.info.name), arguments) as context:
            code = command.invoke(context)
    except typer.Exit as end:
        code = end.exit_code
    except _USAGE_ERROR as error:
        # Typer says whose check failed, which says nothing to the user.
        said = error.format_message().replace(": Value error, ", ": ").rstrip(".")
        raise UsageError(f"{said}; see 'onnx-lowrank --help'") from None
    return code if isinstance(code, int) else 0
