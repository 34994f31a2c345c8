"""Memory that a model takes, measured in a process of its own.

``python -m onnx_lowrank.runtime.memory REQUEST`` is that process; it prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime.cuda import Device
from onnx_lowrank.runtime.engines import CPU, Engine
from onnx_lowrank.types import Feeds

RUNS = 3
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory, beyond those of a process that has only imported the runtime.

    Attributes
    ----------
    resident : int
        Held after a few runs: weights, as packed by the runtime, and its buffers.
    peak : int
        The most ever held, loading included.
    baseline : int
        What the process held before it loaded the model.
    device : int or None
        Bytes of the GPU's own memory taken after a few runs, cuDNN's and onnxruntime's buffers
        included; what other processes take or free meanwhile counts too. None on the CPU.
    """

    resident: int
    peak: int
    baseline: int
    device: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures in bytes, ready for JSON."""
        return asdict(self)


def measure_memory(
    path: str | os.PathLike[str],
    feeds: Feeds,
    *,
    engine: Engine = CPU,
) -> Memory | None:
    """Load and run a model in a fresh process and return what it held.

    Parameters
    ----------
    path : path
        The ONNX file.
    feeds : mapping of str to ndarray
        One array for each input.
    engine : Engine
        What runs it.

    Returns
    -------
    Memory or None
        None where the system does not tell a process its memory (any but Linux).

    Raises
    ------
    ModelError
        The process failed.
    """
    if not _STATUS.exists():
        return None
    with tempfile.TemporaryDirectory(prefix="onnx_lowrank-") as folder:
        inputs, engine_file = Path(folder, "inputs.npz"), Path(folder, "engine")
        engine_file.write_bytes(pickle.dumps(engine))  # it may be one that the user has added
        names = list(feeds)
        np.savez(inputs, **{str(i): feeds[n] for i, n in enumerate(names)})  # type: ignore[arg-type]
        request = json.dumps(
            {
                "path": os.path.abspath(path),
                "inputs": str(inputs),
                "names": names,
                "engine": str(engine_file),
            }
        )
        # The package and what is installed beside it must be found as they were found here.
        search = os.pathsep.join(p for p in sys.path if p)
        child = subprocess.run(
            [sys.executable, "-m", __spec__.name, request],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": search},
            check=False,
        )
    if child.returncode != 0:
        why = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise ModelError(f"memory of {path} could not be measured: {why}; is there enough of it?")
    return Memory(**json.loads(child.stdout))


def _serve(request: dict[str, Any]) -> Memory:
    with np.load(request["inputs"], allow_pickle=False) as arrays:
        feeds = {name: arrays[str(i)] for i, name in enumerate(request["names"])}
    engine: Engine = pickle.loads(Path(request["engine"]).read_bytes())
    assert engine.version  # imports what runs the model, which is not the model's memory
    device = Device() if engine.device == "cuda" else None
    on_device = device.used_memory() if device else 0
    baseline = _held("VmRSS")
    runner = engine.runner(request["path"], feeds)
    for _ in range(RUNS):
        runner.run()
    taken = device.used_memory() - on_device if device else None
    return Memory(_held("VmRSS") - baseline, _held("VmHWM") - baseline, baseline, taken)


def _held(key: str) -> int:
    # VmHWM and not getrusage's maximum, which is inherited from the parent process.
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{_STATUS} has no {key}")


if __name__ == "__main__":
    print(json.dumps(_serve(json.loads(sys.argv[1])).to_dict()))
