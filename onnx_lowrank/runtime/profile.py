"""The time of every node that onnxruntime executes, from its own profiler."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.runtime.session import Provider
from onnx_lowrank.runtime.statistics import Seconds
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    import onnx

WARM_UP_RUNS = 2
LONG_RUN = 0.1  # seconds
_SUFFIX = "_kernel_time"
_WEIGHTS = "weights.bin"


@dataclass(frozen=True)
class Executed:
    """A node that onnxruntime executed.

    Attributes
    ----------
    name : str
        Its name in the optimised model.
    op : str
        Its op type there.
    provider : str
        The execution provider that it ran on, as onnxruntime names it.
    seconds : ndarray, shape (runs,), float64
        Its time in each run.
    """

    name: str
    op: str
    provider: str
    seconds: Seconds


@dataclass(frozen=True)
class Recording:
    """What a `Recorder` saw.

    Attributes
    ----------
    nodes : tuple of Executed
        In the order of execution.
    optimised : onnx.GraphProto
        The graph that was executed, without the values of its weights.
    wall : ndarray, shape (runs,), float64
        Seconds of each run of a session without profiler.
    profiled_wall : ndarray, shape (runs,), float64
        Seconds of each run of the session with profiler, as the profiler sees it.
    """

    nodes: tuple[Executed, ...]
    optimised: onnx.GraphProto
    wall: Seconds
    profiled_wall: Seconds


class Recorder:
    """Runs a model with and without profiler by turns.

    Parameters
    ----------
    model : onnx.ModelProto
        A model in which every node has a name of its own.
    feeds : mapping of str to ndarray
        One array for each input.
    provider, threads
        As of `OrtRunner`. On CUDA the profiler sees launches: start the process with
        ``CUDA_LAUNCH_BLOCKING=1``, so that a launch lasts as long as its kernel.

    Attributes
    ----------
    settings : dict of str to str
        Settings of the provider, as of `OrtRunner`.

    Raises
    ------
    ProviderError, ModelError
        As of `OrtRunner`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feeds: Feeds,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
    ) -> None:
        folder = tempfile.mkdtemp(prefix="onnx_lowrank-")
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = Path(folder, "optimised.onnx")

        def configure(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            options.optimized_model_filepath = str(self._path)
            # Only the structure is read back: the weights go to a file of their own.
            for key, value in {
                "session.optimized_model_external_initializers_file_name": _WEIGHTS,
                "session.optimized_model_external_initializers_min_size_in_bytes": "0",
            }.items():
                options.add_session_config_entry(key, value)

        self._plain = OrtRunner(model, feeds, provider=provider, threads=threads)
        self.settings = self._plain.settings
        self._profiled = OrtRunner(
            model, feeds, provider=provider, threads=threads, configure=configure
        )
        Path(folder, _WEIGHTS).unlink(missing_ok=True)
        self._wall: list[float] = []
        for _ in range(WARM_UP_RUNS):
            self._profiled.run()
            wall = self._time_plain()
        # A short run depends on what another session left in the caches: one more goes ahead.
        self._turns = 2 if wall < LONG_RUN else 1

    def _time_plain(self) -> float:
        start = time.perf_counter()
        self._plain.run()
        return time.perf_counter() - start

    def run(self) -> None:
        """Run once without and once with the profiler."""
        self._wall.append([self._time_plain() for _ in range(self._turns)][-1])
        for _ in range(self._turns):
            self._profiled.run()

    def close(self) -> Recording:
        """End both sessions and return what was recorded.

        Raises
        ------
        ModelError
            The profile is not of the form that this program knows.
        """
        import onnx

        try:
            path = self._profiled.end_profiling()
            events = json.loads(Path(path).read_text(encoding="utf-8"))
            optimised = onnx.load(self._path, load_external_data=False).graph
        except (OSError, ValueError) as error:
            raise ModelError(
                f"onnxruntime's profile cannot be read ({error}); make room for temporary files"
            ) from None
        finally:
            self._remove()
        made = WARM_UP_RUNS + self._turns * len(self._wall)
        counted = range(WARM_UP_RUNS + self._turns - 1, made, self._turns)
        nodes, walls = read_events(events, counted=counted)
        return Recording(nodes, optimised, np.array(self._wall), walls)


def read_events(
    events: Sequence[dict[str, Any]], *, counted: Collection[int]
) -> tuple[tuple[Executed, ...], Seconds]:
    """Read the events of a profile.

    Nodes inside the body of an If, Loop or Scan are left out: their time is within that node's.

    Parameters
    ----------
    events : sequence of dict
        onnxruntime's profile: times in microseconds, in the order in which they ended.
    counted : collection of int
        Numbers of the runs that count, from 0.

    Returns
    -------
    tuple of Executed
        With one time for each run that counts; 0 where a node was not executed.
    ndarray, shape (runs,), float64
        Seconds of each of these runs.

    Raises
    ------
    ModelError
        There is no run that counts, or an event lacks a field.
    """
    try:
        spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run"]
        spans = [span for k, span in enumerate(sorted(spans)) if k in counted]
        nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
        # Of two nodes that begin together the longer one is around the other.
        nodes.sort(key=lambda e: (e["ts"], -e["dur"]))
        times: dict[tuple[str, str, str], Seconds] = {}
        run, covered = 0, -1
        for event in nodes:
            begin, end = event["ts"], event["ts"] + event["dur"]
            while run < len(spans) and spans[run][1] < begin:
                run += 1
            if run == len(spans):
                break
            # Times are rounded down, so that a node never begins before the one ahead of it ends.
            if begin < spans[run][0] or begin < covered:
                continue
            covered = end
            name, arguments = event["name"].removesuffix(_SUFFIX), event["args"]
            key = (name, arguments["op_name"], arguments.get("provider", ""))
            seconds = times.setdefault(key, np.zeros(len(spans)))
            seconds[run] += event["dur"] / 1e6
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"onnxruntime's profile has another form than expected ({error!r}); "
            "use a version of onnxruntime from 1.18 on"
        ) from None
    if not spans:
        raise ModelError("onnxruntime's profile has no run; run the model at least once")
    walls = np.array([(end - begin) / 1e6 for begin, end in spans])
    return tuple(Executed(*key, seconds) for key, seconds in times.items()), walls
