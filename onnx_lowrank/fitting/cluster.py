"""Fits on the workers of a Dask cluster: tasks go out, factors come back and are cached.

A worker needs this package and nothing else: no folder is shared. The statistics travel inside the
task, so that the scheduler can hand it to another worker when one dies.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from numpy.typing import NDArray

import onnx_lowrank
from onnx_lowrank.cache import Cache
from onnx_lowrank.errors import ClusterError, OnnxLowRankError, describe_error
from onnx_lowrank.fitting.arrays import to_arrays
from onnx_lowrank.fitting.parallel import LayerTask, fit_each, unfitted
from onnx_lowrank.layer_errors import LAYER_ERRORS
from onnx_lowrank.types import Progress

REACH = 3.0  # seconds to reach the scheduler
PATIENCE = 30.0  # seconds without a worker
_PROBE = 1.0  # seconds between looks at the workers
# Tasks at a time for each thread of a worker: one to go on with while a result travels.
_AHEAD = 2
_ADDRESS = re.compile(r"[a-z]+://(?P<host>\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})")
_NO_DASK = "a cluster takes Dask; pip install 'onnx_lowrank[dask]'"
Arrays = dict[str, NDArray[Any]]


def fit_on_cluster(
    scheduler: str,
    tasks: Sequence[LayerTask],
    store: Cache,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Fit every scheme of every layer that the store lacks, and cache the fits in it.

    Parameters
    ----------
    scheduler : str
        Address of the scheduler, such as ``tcp://host:8786``.
    tasks : sequence of LayerTask
        What to fit; one task for each layer.
    store : Cache
        Caches fits, those of a layer as soon as they come back.
    seed : int
        Fixes every random choice.
    progress : callable
        Called with a sentence, the number of layers done, and their total.

    Raises
    ------
    ClusterError
        Dask is not installed, the scheduler cannot be reached or has no worker, the workers have
        another version of this package, or a task ended several workers.
    """
    missing = unfitted(tasks, store, seed)
    if not missing:
        return
    step = "fitting candidates on the cluster"
    progress(step, 0, len(missing))
    with _connected(scheduler) as client:
        # One layer a task: what a dying worker had done of its task is done again.
        for done, fits in enumerate(_results(client, scheduler, missing, seed), start=1):
            for key, arrays in fits:
                store.put_arrays(key, arrays)
            progress(step, done, len(missing))


def check_scheduler(scheduler: str) -> None:
    """Raise ClusterError where no scheduler answers at an address: before the work, not after it.

    Dask's client is not left to find that out: where anything else listens, it waits forever.
    """
    remedy = "give one such as tcp://host:8786"
    if (address := _ADDRESS.fullmatch(scheduler)) is None:
        raise ClusterError(f"'{scheduler}' is no address of a Dask scheduler; {remedy}")
    try:
        host, port = address["host"].strip("[]"), int(address["port"])
        socket.create_connection((host, port), timeout=REACH).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"cannot reach the Dask scheduler {scheduler}: {error}; check the address, or start it"
        ) from None
    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's may run an event loop, as notebooks do
            thread.submit(asyncio.run, _greet(scheduler)).result()
    except ImportError:
        raise ClusterError(_NO_DASK) from None
    except Exception as error:  # anything may be answered there
        why = "nothing" if isinstance(error, TimeoutError) else describe_error(error)
        raise ClusterError(
            f"what listens at {scheduler} is no Dask scheduler: it answered {why}; check the "
            "address, or start one"
        ) from None


async def _greet(scheduler: str) -> None:
    """Exchange the first messages with a scheduler."""
    from distributed.comm import connect
    from distributed.security import Security

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    arguments = Security().get_connection_args("client")
    try:
        comm = await asyncio.wait_for(connect(scheduler, timeout=REACH, **arguments), REACH)
    except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
        raise TimeoutError from None
    await comm.close()


def _results(
    client: Any, scheduler: str, tasks: Sequence[LayerTask], seed: int
) -> Iterator[list[tuple[str, Arrays]]]:
    """Yield the fits of each task as they come back, whichever is first."""
    left = iter(tasks)
    running = 0
    finished: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def fetch(future: Any) -> None:
        """Fetch a result in a thread of Dask's: where its worker died with it, that may wait."""
        try:
            finished.put((future.result(), None))
        except BaseException as error:  # raised below
            finished.put((None, error))

    last_seen = time.monotonic()
    while True:
        threads = sum(client.ncores().values())
        for task in islice(left, max(_AHEAD * max(threads, 1) - running, 0)):
            future = client.submit(_fit, _packed(task), seed, pure=False)
            future.add_done_callback(fetch)
            running += 1
        if not running:
            return
        with suppress(Empty):
            found, error = finished.get(timeout=_PROBE)
            if error is not None:
                raise error
            running -= 1
            yield found
        if threads:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > PATIENCE:
            raise ClusterError(
                f"the Dask scheduler {scheduler} has lost all workers and got none for "
                f"{PATIENCE:g} seconds; start some, and run it again: finished fits are kept"
            )


def _packed(task: LayerTask) -> LayerTask:
    """Return the task with its statistics in it, which a worker could not read from here."""
    return replace(task, statistics={task.name: task.statistics[task.name]})


def _fit(task: LayerTask, seed: int) -> list[tuple[str, Arrays]]:
    """Return the key and the arrays of every fit that succeeds; runs on a worker.

    Those that fail are tried again where the search runs, which says why.
    """
    schemes = list(zip(task.keys(seed), task.schemes, strict=True))
    try:
        fits = fit_each(task.name, schemes, task.fit_problem(), seed=seed, reasons=[])
        return [(key, to_arrays(fit)) for key, fit in fits]
    except LAYER_ERRORS:
        return []


def _version() -> str:
    return onnx_lowrank.__version__


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """Give a client of a cluster that has a worker, all with this version of the package."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ClusterError(_NO_DASK) from None

    class Connection(Client):  # type: ignore[misc]  # follows no import
        def __del__(self) -> None:
            """Do nothing: it is closed below, and where it was never open, that fails aloud."""

    check_scheduler(scheduler)
    # What goes wrong is said in one line, by an error.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings = {
        # The statistics of a layer are large; they are meant to travel in the task.
        "distributed.admin.large-graph-warning-threshold": "1 TiB",
        "distributed.comm.timeouts.connect": REACH,
    }
    with dask.config.set(settings):
        try:
            client = Connection(scheduler, timeout=REACH, set_as_default=False)
        except Exception as error:  # something else may listen there, and answer anything
            raise ClusterError(
                f"cannot reach the Dask scheduler {scheduler}: {describe_error(error)}; check the "
                "address"
            ) from None
        with client:
            try:
                try:
                    client.wait_for_workers(1, timeout=PATIENCE)
                except TimeoutError:
                    raise ClusterError(
                        f"the Dask scheduler {scheduler} has no worker after {PATIENCE:g} seconds; "
                        "start some, where onnx_lowrank is installed"
                    ) from None
                found = set(client.run(_version).values())
                if found != {_version()}:
                    raise ClusterError(
                        f"the workers have onnx_lowrank {', '.join(sorted(found))}, not "
                        f"{_version()}; install the same version there"
                    )
                yield client
            except OnnxLowRankError:
                raise
            except Exception as error:  # whatever a remote process raises
                raise ClusterError(
                    f"the Dask cluster failed: {describe_error(error)}; see the workers' "
                    "logs, and run it again: finished fits are kept"
                ) from error
