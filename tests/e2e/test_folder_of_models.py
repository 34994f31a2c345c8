"""The README's script: a folder of models on a cluster that loses half of its workers."""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import text_model
from counting import latencies
from local_cluster import kill_at_work, local_cluster
from small_networks import low
from threadpoolctl import threadpool_limits

import onnx_lowrank
from onnx_lowrank.graph.gate import read_model
from onnx_lowrank.types import Progress

distributed = pytest.importorskip("distributed")
image = pytest.importorskip("PIL.Image")
psutil = pytest.importorskip("psutil")  # comes with distributed

README = Path(__file__).parents[2] / "README.md"
GOOD = ("a.onnx", "c.onnx", "e.onnx", "g.onnx")
NET = """g (float[N,3,12,12] image) => (float[N,10] y) {
  c1 = Conv<pads=[1,1,1,1]>(image, w1)  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2)  r2 = Relu(c2)
  c3 = Conv<pads=[1,1,1,1]>(r2, w3)  r3 = Relu(c3)
  p = GlobalAveragePool(r3)  f = Flatten(p)  y = Gemm<transB=1>(f, w4)
}"""


class Killed(BaseException):
    """Ends the script where it stands."""


def script() -> str:
    text = README.read_text(encoding="utf-8")
    return text.partition("<!-- folder-script -->\n```python\n")[2].partition("```\n")[0]


def net(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    convs = {
        name: low(rng, 24, inputs, 3, 3) for name, inputs in (("w1", 3), ("w2", 24), ("w3", 24))
    }
    model = text_model(NET, {**convs, "w4": low(rng, 10, 24)})
    for node in model.graph.node:
        node.name = node.output[0]
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Networks, a broken file, two with nothing to replace, and blurred noise for photographs."""
    models, images = tmp_path / "models", tmp_path / "images"
    models.mkdir()
    images.mkdir()
    for seed, name in enumerate(GOOD):
        onnx.save(net(seed), models / name)
    (models / "b.onnx").write_bytes(b"\x08\x08\x12 this is no model")
    rng = np.random.default_rng(0)
    ends = "g (float[N,3,12,12] image) => (float[N,3,12,12] y)"
    onnx.save(text_model(f"{ends} {{ y = Relu(image) }}"), models / "d.onnx")
    depthwise = text_model(f"{ends} {{ y = Conv<group=3>(image, w) }}", {"w": low(rng, 3, 1, 1, 1)})
    onnx.save(depthwise, models / "f.onnx")
    for number in range(96):
        pixels = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        blurred = image.fromarray(pixels).resize((16, 16), image.Resampling.BILINEAR)
        blurred.save(images / f"{number:02}.png")
    return tmp_path


class Run:
    """The script in this process, on a machine whose time is its multiply-adds.

    Attributes
    ----------
    plans : dict of str to str
        The plan of every model that was searched to its end, as JSON, by the name of its file.
    open : list of tuple of int
        Threads of Python, threads and files of the process, after each of these.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.plans: dict[str, str] = {}
        self.open: list[tuple[int, int, int]] = []
        self._options = options
        self._compress = onnx_lowrank.compress_to_budget
        self._patch = monkeypatch

    def __call__(self, folder: Path, cache: str, scheduler: str = "unused") -> None:
        (folder / "script.py").write_text(script(), encoding="utf-8")
        with self._patch.context() as patch, threadpool_limits(1):  # as on the workers
            patch.chdir(folder)
            patch.setenv("ONNX_LOWRANK_CACHE", str(folder / cache))
            patch.setattr(sys, "argv", ["script.py", scheduler])
            patch.setattr(onnx_lowrank, "compress_to_budget", self._counting)
            runpy.run_path("script.py", run_name="__main__")

    def _counting(self, path: Path, budget: onnx_lowrank.Budget, **given: Any) -> Any:
        model = read_model(path).model
        table = latencies(model) if len(model.graph.node) > 1 else None  # nothing to time
        found = self._compress(path, budget, **{**given, "latency": table, **self._options})
        self.plans[path.name] = json.dumps(found.compressed.plan.to_dict())
        process = psutil.Process()
        self.open.append((threading.active_count(), process.num_threads(), process.num_fds()))
        return found


@contextmanager
def killer(address: str) -> Iterator[tuple[Progress, list[str]]]:
    """Give a progress callback that kills a worker at work in each of the first two searches.

    And the addresses of those that were killed.
    """
    killed: list[str] = []
    threads: list[threading.Thread] = []
    over = threading.Event()
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(4, timeout=30)
        pids = client.run(os.getpid)

        def kill() -> None:
            while not over.wait(0.05):
                if gone := kill_at_work(client, pids):
                    killed.append(gone)
                    return

        def show(step: str, done: int, total: int) -> None:
            del total
            if step == "fitting candidates on the cluster" and done == 0 and len(threads) < 2:
                threads.append(threading.Thread(target=kill))
                threads[-1].start()

        try:
            yield show, killed
        finally:
            over.set()
            for thread in threads:
                thread.join()


@pytest.mark.slow
def test_the_models_of_a_cluster_that_loses_workers_are_those_of_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_cluster(folder, workers=4) as cluster, killer(cluster.address) as (show, killed):
        far = Run(monkeypatch, progress=show)
        far(folder, "far", cluster.address)
    assert len(killed) == 2
    assert far.plans.keys() == {*GOOD, "f.onnx"}
    lines = capsys.readouterr().out.splitlines()
    said = dict(line.removeprefix("models/").split(": ", 1) for line in lines)
    assert len(lines) == len(said) == len(GOOD) + 3
    assert "not an ONNX model" in said["b.onnx"]
    assert "no layer that could be approximated" in said["d.onnx"]
    assert said["f.onnx"] == "no layer can be approximated"
    # A verdict may be a little below the bound: such a model is not written.
    passed = [name for name in GOOD if said[name] == "passed"]
    assert len(passed) >= 2
    models = written(folder)
    assert models.keys() == set(passed)

    # Sessions, files and the connection to the cluster end with each model.
    assert all(last <= early for last, early in zip(far.open[-1], far.open[1], strict=True))

    def stop(step: str, done: int, total: int) -> None:
        if len(first.plans) == 2 and step == "fitting candidates" and 0 < done < total:
            raise Killed

    (folder / "small").rename(folder / "of the cluster")
    first = Run(monkeypatch, dask=None, progress=stop)
    with pytest.raises(Killed):
        first(folder, "near")
    done = written(folder)
    assert done == {name: models[name] for name in passed if name in first.plans}
    kept = {path: path.stat().st_mtime_ns for path in (folder / "near").glob("search/*.*")}
    assert kept
    second = Run(monkeypatch, dask=None)
    second(folder, "near")
    assert second.plans.keys() == far.plans.keys() - done.keys()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert written(folder) == models
    assert {**first.plans, **second.plans} == far.plans
    assert all(second.plans[name] == first.plans[name] for name in first.plans.keys() - done.keys())


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "small").iterdir()}
