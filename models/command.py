"""Commands of onnx-lowrank, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from onnx_lowrank.errors import OnnxLowRankError

COMMAND = (sys.executable, "-c", "from onnx_lowrank.cli import main; main()")


def olr(*arguments: object) -> Any:
    """Run a command with ``--json`` and return what it printed; its exit code 1 is a result."""
    call = [*COMMAND, *map(str, arguments), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        said = done.stderr.strip() or f"it ended with exit code {done.returncode}"
        raise OnnxLowRankError(f"{' '.join(map(str, arguments))}: {said}")
    return json.loads(done.stdout)
