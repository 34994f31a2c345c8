"""Points over processes, handed back as they finish."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from onnx_lowrank.errors import DataError, OnnxLowRankError
from onnx_lowrank.pipelines.sweeping.evaluate import Setting, evaluate
from onnx_lowrank.pipelines.sweeping.grid import Point
from onnx_lowrank.pipelines.sweeping.result import PointResult
from onnx_lowrank.processes import without_interrupts


def threads_per_job(jobs: int) -> int:
    """Return how many threads each of some processes may use, so that all cores have one."""
    cores = int(cpu_count())
    return max(1, cores // (cores if jobs == -1 else jobs))


def evaluate_all(
    setting: Setting, points: Sequence[tuple[Point, str]], jobs: int
) -> Iterator[tuple[str, PointResult]]:
    """Evaluate points with their keys in `jobs` processes, and yield each as it is finished.

    Raises
    ------
    DataError
        The data cannot be handed to another process.
    OnnxLowRankError
        A point cannot be evaluated, or a process died.
    """
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs")
    try:
        with without_interrupts():
            results = parallel(delayed(evaluate)(setting, point, key) for point, key in points)
        yield from results
    except TerminatedWorkerError:
        raise OnnxLowRankError(
            "a process of the sweep died, most likely for want of memory; run it again with fewer "
            "jobs: finished points are kept"
        ) from None
    except (pickle.PicklingError, TypeError) as error:
        if setting.network is None or jobs == 1 or not _unpicklable(setting.network):
            raise
        raise DataError(
            f"the data cannot be handed to other processes ({error}); give a folder, an .npz file "
            "or module:callable, or one job"
        ) from None


def _unpicklable(value: object) -> bool:
    try:
        pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return True
    return False
