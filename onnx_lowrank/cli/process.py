"""What the command line does with its process: its streams, and the signals that end it.

Nothing heavy is imported here, so that an interruption is handled while the rest is imported.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

PATIENCE = 5.0  # seconds to clean up after a signal, before the process ends as it is
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_INTERRUPTED = b"error: interrupted; every file is whole or as it was\n"
_SHOW_CURSOR = b"\r\x1b[2K\x1b[?25h"


def open_streams() -> None:
    """Put something in the place of closed standard streams, and let any text be printed.

    A file opened where stdout was closed would get its number, and then what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """Let what could not be written to stdout go, so that the interpreter does not try again."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


class Signals:
    """Turns the signals that end a process into KeyboardInterrupt, so that it cleans up.

    From the signal on, nothing reaches stderr but what `report` writes there: an interruption in
    the middle of others' code may be reported there as anything. A second signal, or `PATIENCE`
    seconds of cleaning up, end the process at once.

    Attributes
    ----------
    received : int or None
        The signal that came before the work was done.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._done = False
        self._heard: list[int] = []
        self._stderr = 2

    def start(self) -> None:
        """Listen to signals, from here to the end of the process."""
        for name in _ENDING:
            number = getattr(signal, name, None)
            # One that is ignored stays so, as nohup and shells in the background mean it.
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                signal.signal(number, self._receive)
            except ValueError:  # not in the main thread, which is who gets signals
                break
            self._heard.append(number)

    def finish(self) -> None:
        """Say that the work is done or given up: what comes now is too late and ignored."""
        self._done = True
        # Python gives its own handlers back before it ends, and then a signal would end it.
        for number in self._heard:
            signal.signal(number, signal.SIG_IGN)

    @property
    def code(self) -> int:
        """The exit code that says which signal ended the process."""
        return 128 + (signal.SIGINT if self.received is None else self.received)

    def report(self) -> None:
        """Say in one line that the process was interrupted."""
        clear = _SHOW_CURSOR if os.isatty(self._stderr) else b""
        with suppress(OSError):  # nobody listens
            os.write(self._stderr, clear + _INTERRUPTED)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._done:
            return
        if self.received is not None:
            os._exit(self.code)
        self.received = number
        self._silence()
        _thread.start_new_thread(self._end, ())
        raise KeyboardInterrupt

    def _silence(self) -> None:
        with suppress(OSError):  # no file can be opened any more
            self._stderr = os.dup(2)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)

    def _end(self) -> None:
        time.sleep(PATIENCE)
        if not self._done:
            self.report()
        os._exit(self.code)
