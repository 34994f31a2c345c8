"""Fits on a real cluster of processes that share no folder, one of which is killed at work."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from counting import latencies
from local_cluster import Cluster, kill_at_work, local_cluster
from onnx import numpy_helper, parser
from threadpoolctl import threadpool_limits

import onnx_lowrank
from onnx_lowrank.errors import ClusterError
from onnx_lowrank.fitting import cluster
from onnx_lowrank.planning.budget import Budget

distributed = pytest.importorskip("distributed")

NET = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[N,16,12,12] x) => (float[N,48,12,12] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1)
    b = Relu(a)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    d = Relu(c)
    e = Conv<pads=[1,1,1,1]>(d, w3)
    f = Relu(e)
    y = Conv<pads=[1,1,1,1]>(f, w4)
}
"""
SHAPES = {"w1": (48, 16, 3, 3), "w2": (48, 48, 3, 3), "w3": (48, 48, 3, 3), "w4": (48, 48, 3, 3)}


def net() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    model = parser.parse_model(NET)
    for name, shape in SHAPES.items():
        weight = rng.standard_normal((shape[0], 8)) @ rng.standard_normal((8, shape[1] * 9))
        weight += 0.3 * rng.standard_normal(weight.shape)
        weight /= np.linalg.norm(weight, axis=1, keepdims=True)
        value = weight.reshape(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for index, node in enumerate(model.graph.node):
        node.name = f"node{index}"
    return model


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Cluster]:
    with local_cluster(tmp_path, workers=2) as found:
        yield found


def search(folder: Path, **options: Any) -> onnx_lowrank.BudgetResult:
    rng = np.random.default_rng(5)
    data = [{"x": rng.standard_normal((4, 16, 12, 12)).astype(np.float32)} for _ in range(12)]
    model = net()
    with threadpool_limits(1):  # as on the workers: sums of other orders round otherwise
        return onnx_lowrank.compress_to_budget(
            model,
            Budget(min_sqnr_db=12),
            data=data,
            cache_dir=folder,
            latency=latencies(model),
            **options,
        )


def killer(client: Any, pids: dict[str, int], killed: list[str]) -> Callable[..., None]:
    """Return a progress callback that kills a worker at work, once a layer has come back."""

    def show(step: str, done: int, total: int) -> None:
        if "cluster" not in step or killed or not 0 < done < total:
            return
        address = kill_at_work(client, pids)
        assert address, "no worker was at work"
        killed.append(address)

    return show


def test_a_killed_worker_changes_nothing(workers: Cluster, tmp_path: Path) -> None:
    killed: list[str] = []
    with distributed.Client(workers.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
        pids = client.run(os.getpid)
        show = killer(client, pids, killed)
        far = search(tmp_path / "far", dask=workers.address, progress=show)
        assert len(killed) == 1
        assert killed[0] not in client.scheduler_info(n_workers=-1)["workers"]
    near = search(tmp_path / "near")
    assert near.compressed.plan.chosen
    assert far.compressed.plan == near.compressed.plan
    assert far.compressed.model == near.compressed.model
    kept = {path.name for path in (tmp_path / "far" / "search").glob("*.npz")}
    assert kept == {path.name for path in (tmp_path / "near" / "search").glob("*.npz")}
    for number in range(2):  # nothing was kept over there
        assert not (tmp_path / f"worker{number}" / "cache").exists()
    # What was kept is not fitted again: the cluster may be gone, and is left out then.
    for process in workers.processes:
        process.kill()
    again = search(tmp_path / "far")
    assert again.compressed.model == far.compressed.model


def test_a_scheduler_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"cannot reach the Dask scheduler .*; check the addr"):
        search(tmp_path, dask="tcp://127.0.0.1:1")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n"])
def test_what_is_no_scheduler_is_one_line(tmp_path: Path, answer: bytes) -> None:
    def serve(listener: socket.socket) -> None:
        # OSError: it was closed.
        with contextlib.suppress(OSError), contextlib.ExitStack() as connections:
            while True:
                connection = connections.enter_context(listener.accept()[0])
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        start = time.monotonic()
        with pytest.raises(ClusterError, match=r"is no Dask scheduler: it answered .*; check the"):
            search(tmp_path, dask=f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        assert time.monotonic() - start < 8
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "address", ["", "host", "tcp://", "tcp://:1", "tcp://h:x", "tcp://a b:1", "inproc://x", "a\nb"]
)
def test_what_is_no_address_is_one_line(tmp_path: Path, address: str) -> None:
    with pytest.raises(ClusterError, match="is no address of a Dask scheduler; give one such as"):
        search(tmp_path, dask=address)


def test_workers_that_vanish_are_one_line(
    tmp_path: Path, workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, in the middle of the work, while the scheduler lives on."""
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)

    def show(step: str, done: int, total: int) -> None:
        if "cluster" in step and done:
            workers.kill_workers()

    with pytest.raises(ClusterError, match="has lost all workers and got none for 2 seconds"):
        search(tmp_path / "far", dask=workers.address, progress=show)


def test_results_of_workers_that_vanish_after_the_work_are_there(
    tmp_path: Path, workers: Cluster
) -> None:
    """They are fetched when they are there, not when the search comes to them."""

    def show(step: str, done: int, total: int) -> None:
        if "cluster" in step and done == 1:
            with distributed.Client(workers.address, set_as_default=False) as client:
                while any(client.processing().values()):
                    time.sleep(0.05)
                time.sleep(1)
            workers.kill_workers()

    assert search(tmp_path / "far", dask=workers.address, progress=show).compressed.plan.chosen


def test_without_workers_there_is_one_line(
    tmp_path: Path, workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.kill_workers()
    time.sleep(1)  # the scheduler sees the connections close
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    with pytest.raises(ClusterError, match="has no worker after 2 seconds; start some"):
        search(tmp_path / "far", dask=workers.address)
