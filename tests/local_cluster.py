"""A Dask cluster of processes on this machine that share no folder, to be killed at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_lowrank


@dataclass
class Cluster:
    """A scheduler and its workers, as processes."""

    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, folder: Path, module: str, *arguments: str) -> None:
        folder.mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # No folder in common: not even that of the cache.
        environment["ONNX_LOWRANK_CACHE"] = str(folder / "cache")
        root = str(Path(onnx_lowrank.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.processes.append(process)

    def kill_workers(self) -> None:
        for process in self.processes[1:]:
            process.kill()
            process.wait()


@contextmanager
def local_cluster(folder: Path, *, workers: int) -> Iterator[Cluster]:
    """Start a scheduler and workers of one thread, each in a folder of its own; kill them all."""
    found, file = Cluster(), folder / "scheduler.json"
    common = ("--scheduler-file", str(file), "--no-dashboard")
    try:
        found.start(
            *(folder / "scheduler", "dask_scheduler", *common),
            *("--host", "127.0.0.1", "--port", "0"),
        )
        for number in range(workers):
            found.start(
                *(folder / f"worker{number}", "dask_worker", *common),
                *("--no-nanny", "--nthreads", "1", "--host", "127.0.0.1"),
            )
        while not file.exists() or not file.read_text():
            assert found.processes[0].poll() is None
            time.sleep(0.05)
        found.address = json.loads(file.read_text())["address"]
        yield found
    finally:
        for process in reversed(found.processes):
            process.kill()
            process.wait()


def kill_at_work(client: Any, pids: dict[str, int]) -> str | None:
    """Kill a worker that has a task, and take it out of `pids`; return its address.

    Parameters
    ----------
    client : distributed.Client
        A client of the cluster.
    pids : dict of str to int
        The workers that may be killed, by address. None is returned where they all are idle.
    """
    for address, tasks in client.processing().items():
        if tasks and address in pids:
            os.kill(pids.pop(address), signal.SIGKILL)
            return str(address)
    return None
