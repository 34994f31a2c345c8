"""Fits on the workers of a Dask cluster: problems go out, factors come back, the caller keeps them.

A worker needs this package and nothing else: no folder is shared. Its problem travels inside the
task, so that the scheduler can hand it to another one when a worker dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from joblib import Parallel, delayed, parallel_config
from numpy.typing import NDArray

import onnx_lowrank
from onnx_lowrank.errors import LAYER_ERRORS, ClusterError, OnnxLowRankError
from onnx_lowrank.searching.fits import LayerProblem, fit_each, to_arrays, unfitted
from onnx_lowrank.store import Store

PATIENCE = 30.0  # seconds to reach the scheduler, and until it has a worker
Arrays = dict[str, NDArray[Any]]
Progress = Callable[[str, int, int], None]


def fit_on_cluster(
    scheduler: str,
    problems: Sequence[LayerProblem],
    store: Store,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Fit every scheme of every layer that the store lacks, and keep the fits in it.

    Parameters
    ----------
    scheduler : str
        Address of the scheduler, such as ``tcp://host:8786``.
    problems : sequence of LayerProblem
        What to fit; one task for each layer.
    store : Store
        Where fits are kept, those of a layer as soon as they come back.
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
    missing = unfitted(problems, store, seed)
    if not missing:
        return
    step = "fitting candidates on the cluster"
    progress(step, 0, len(missing))
    with _connected(scheduler) as client:
        work = (delayed(_fit)(_packed(problem), seed) for problem in missing)
        with parallel_config(backend="dask", client=client, wait_for_workers_timeout=PATIENCE):
            # One layer a task: what a dying worker had done of its task is done again.
            runner = Parallel(n_jobs=-1, batch_size=1, return_as="generator_unordered")
            for done, fits in enumerate(runner(work), start=1):
                for key, arrays in fits:
                    store.put_arrays(key, arrays)
                progress(step, done, len(missing))


def _packed(problem: LayerProblem) -> LayerProblem:
    """Return the problem with its statistics in it, which a worker could not read from here."""
    return replace(problem, statistics={problem.name: problem.statistics[problem.name]})


def _fit(problem: LayerProblem, seed: int) -> list[tuple[str, Arrays]]:
    """Return the key and the arrays of every fit that succeeds; runs on a worker.

    Those that fail are tried again where the search runs, which says why.
    """
    schemes = list(zip(problem.keys(seed), problem.schemes, strict=True))
    try:
        fits = fit_each(problem.name, schemes, problem.fit_problem(), seed=seed, reasons=[])
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
        raise ClusterError("a cluster takes Dask; pip install 'onnx_lowrank[dask]'") from None
    # The statistics of a layer are large; they are meant to travel in the task.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
        try:
            client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ClusterError(
                f"cannot reach the Dask scheduler {scheduler}: {error}; check the address"
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
                found = set(client.run(_version).values())
                if found != {_version()}:
                    raise ClusterError(
                        f"the workers have onnx_lowrank {', '.join(sorted(found))}, not "
                        f"{_version()}; install the same version there"
                    )
                yield client
            except OnnxLowRankError:
                raise
            except TimeoutError:
                raise ClusterError(
                    f"the Dask scheduler {scheduler} has no worker after {PATIENCE:g} seconds; "
                    "start some, where onnx_lowrank is installed"
                ) from None
            except Exception as error:  # whatever a remote process raises
                raise ClusterError(
                    f"the Dask cluster failed: {type(error).__name__}: {error}; see the workers' "
                    "logs, and run it again: finished fits are kept"
                ) from error
