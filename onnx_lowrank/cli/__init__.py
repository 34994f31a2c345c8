"""The command line: parsing and printing; every command is one call of the API.

Results go to stdout, messages to stderr. Exit codes: 0 done and within tolerance, 1 checked and
failed, 2 bad input or no room for the result, 141 nobody reads stdout any more, 130 and the like
ended by a signal. Each command is a module of its name.

Nothing heavy is imported here: whatever happens while the rest is, `main` answers for it.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

from onnx_lowrank.cli.process import Signals, abandon_stdout, open_streams
from onnx_lowrank.errors import OnnxLowRankError
from onnx_lowrank.text import printable

_CLOSED_PIPE = 141  # as of a program that SIGPIPE ends
_NO_ROOM = "free space, or set TMPDIR and ONNX_LOWRANK_CACHE to folders with room"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "use a smaller batch or fewer samples",
}
_REMEDY = "check the working folder, TMPDIR and ONNX_LOWRANK_CACHE: each must be there and writable"


def __getattr__(name: str) -> Any:
    if name in ("app", "COMMANDS"):
        from onnx_lowrank.cli import commands

        return getattr(commands, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def main() -> NoReturn:
    """Run the command line; every error is one line on stderr."""
    signals = Signals()
    try:
        signals.start()
        code = _run(signals)
    except KeyboardInterrupt:  # a signal that came as an error was answered
        code = signals.code
        signals.finish()
    if signals.received is not None:
        if code == signals.code:
            signals.report()
        with suppress(OSError):
            sys.stdout.flush()
        # By this way, as the interpreter may end itself by SIGINT where an interruption came within
        # `exec` of a text, though it was caught. Temporary folders are removed by these functions.
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def _run(signals: Signals) -> int:
    """Run a command and return the exit code; say in one line what went wrong."""
    code, message = 0, ""
    try:
        open_streams()
        # Without a home folder onnxruntime warns on stderr that it cannot tell its users apart.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        from onnx_lowrank.cli.commands import run

        code = run(sys.argv[1:])
        sys.stdout.flush()
        signals.finish()
    # Everything: a signal in the middle of an import comes out as almost any error.
    except BaseException as error:
        signals.finish()
        if signals.received is not None or isinstance(error, KeyboardInterrupt):
            return signals.code
        if isinstance(error, OnnxLowRankError):
            code, message = 2, str(error)
        # rich makes SystemExit of a closed pipe.
        elif isinstance(error, BrokenPipeError) or (
            isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
        ):
            code = _CLOSED_PIPE
        elif isinstance(error, SystemExit):
            code, message = 2, "code of the data or the score ended the program; repair it"
        elif isinstance(error, OSError):
            code, message = 2, _describe(error)
        elif isinstance(error, MemoryError):
            code, message = 2, "there is not enough memory; use a smaller batch or fewer samples"
        else:
            raise
        if isinstance(error, OSError | SystemExit):
            abandon_stdout()
    if message:
        _print_error(message)
    return code


def _describe(error: OSError) -> str:
    if error.errno is None:  # as numpy says of a file that it could write in part only
        return f"a file cannot be read or written in whole: {error}; {_NO_ROOM}"
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{place}; {_REMEDIES.get(error.errno, _REMEDY)}"


def _print_error(message: str) -> None:
    with suppress(OSError):  # nobody listens
        print("error: " + printable(" ".join(message.split())), file=sys.stderr)
