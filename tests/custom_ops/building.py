"""Builds one target of the custom ops."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "custom_ops"


def build(folder: Path, target: str, *options: str) -> Path:
    """Build one target of the working tree; return the folder it lies in."""
    for command in (
        ["cmake", "-S", SOURCE, "-B", folder, *options],
        ["cmake", "--build", folder, "-j2", "--target", target],
    ):
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    return folder
