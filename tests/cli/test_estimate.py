"""`compress --estimate`: what it reads, what it refuses, and that it writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-drop", 1, "-o", "new.onnx"), "--output, --max-drop: --estimate does not read"),
        (("--layer", "conv1=keep"), "--layer: --estimate does not read this; leave it out"),
        ((), "an estimate needs a few samples; give --data"),
    ],
)
def test_what_it_does_not_read_is_refused(
    cli: Cli, classifier: Path, options: tuple[object, ...], message: str
) -> None:
    outcome = cli("compress", classifier, "--estimate", *options)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.count("\n") == 1


def test_without_it_an_output_is_needed(cli: Cli, classifier: Path) -> None:
    outcome = cli("compress", classifier, "--max-drop", 1)
    assert outcome.code == 2
    assert outcome.err == (
        "error: where the new model goes is missing; give --output FILE, or --estimate\n"
    )
