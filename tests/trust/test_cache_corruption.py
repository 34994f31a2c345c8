"""A search from a damaged cache gives what one from an empty cache gives, and says so once."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from counts import Record
from onnx import helper, numpy_helper

from onnx_lowrank.cli import main
from onnx_lowrank.runtime.bench import Contender
from onnx_lowrank.search import timing

pytestmark = pytest.mark.filterwarnings("default")

SCALE = float(os.environ.get("ONNX_LOWRANK_TRUST_SCALE", "1"))
SHAPES = [[1], {"x": None}, "text", 1.5, None, [[1, 2, 3, 4]], {"noise": "x"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a network of low rank and samples."""
    folder = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)

    def low(*shape: int) -> np.ndarray:  # type: ignore[type-arg]
        wide = rng.standard_normal((shape[0], 3)) @ rng.standard_normal(
            (3, int(np.prod(shape[1:])))
        )
        return (wide.reshape(shape) / 20).astype(np.float32)

    weights = {"w1": low(12, 3, 3, 3), "w2": low(12, 12, 3, 3), "w3": low(12, 10)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["b"], "conv2", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["b"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", 1, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, folder / "net.onnx")
    for name in ("a", "b"):
        x = rng.standard_normal((24, 3, 16, 16)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x)
    return folder


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose time is its weights: by a real clock no two searches are the same."""

    def measure(contenders: Sequence[Contender], *, repeats: int, **_: Any) -> tuple[Any, None]:
        timings = []
        for each in contenders:
            assert isinstance(each.load, partial)
            model = each.load.args[0]
            weights = sum(int(np.prod(value.dims)) for value in model.graph.initializer)
            seconds = 1e-6 + 1e-9 * weights
            timings.append(SimpleNamespace(block_medians=np.full((repeats, 8), seconds)))
        return timings, None

    monkeypatch.setattr(timing, "measure", measure)


@pytest.fixture
def search(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[bytes, str, str]]:
    """Give a function that searches from a cache; it returns model, plan and messages."""
    monkeypatch.chdir(place)

    def run(cache: Path, *options: str) -> tuple[bytes, str, str]:
        monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(cache))
        line = (
            *("compress", "net.onnx", "-o", "new.onnx", "--save-plan", "plan.json"),
            *("--data", "a.npz", "--calibrate", "b.npz", "--min-sqnr", "10", "--objective"),
            *("latency", "--threads", "1", "--keep-anyway", *options),
        )
        monkeypatch.setattr(sys, "argv", ["onnx-lowrank", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        err = capsys.readouterr().err
        assert ended.value.code in (0, 1), err
        return Path("new.onnx").read_bytes(), Path("plan.json").read_text(), err

    return run


def damage(paths: Sequence[Path], rng: random.Random) -> str:
    """Damage one entry, or two by exchanging them, and return how."""
    path = rng.choice(paths)
    content = path.read_bytes() or b"\0"
    kind = rng.choice(("flip", "flip", "cut", "empty", "swap", "json", "zip", "nan"))
    if kind == "flip":
        spoilt = bytearray(content)
        for _ in range(rng.choice((1, 1, 8))):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
    elif kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "swap":
        other = rng.choice([each for each in paths if each.suffix == path.suffix and each != path])
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == "json":
        path.write_text(json.dumps(rng.choice(SHAPES)))
    elif kind == "zip":
        with path.open("wb") as file:
            np.savez(file, kind=np.array("SpatialFactors"), figures=np.zeros(2))
    else:
        path.write_text("[NaN, Infinity, 1, 1]")
    return f"{kind} {path.suffix}"


def test_a_damaged_cache_changes_no_result(
    trust_record: Record, place: Path, search: Callable[..., tuple[bytes, str, str]]
) -> None:
    clean = place / "clean"
    model, plan, said = search(clean)
    assert "damaged" not in said
    assert search(clean) == (model, plan, said)
    entries = sorted(path.relative_to(clean) for path in clean.rglob("*") if path.is_file())
    assert {path.suffix for path in entries} == {".json", ".npz"}

    tried: Counter[str] = Counter()
    for seed in range(int(SCALE * 2)):
        rng = random.Random(seed)
        spoilt = place / "spoilt"
        shutil.rmtree(spoilt, ignore_errors=True)
        shutil.copytree(clean, spoilt)
        # Not every entry is asked for again: in each run many are damaged, of which some are.
        paths = [spoilt / path for path in entries]
        for _ in range(rng.choice((len(paths) // 4, len(paths)))):
            tried[damage(paths, rng)] += 1
        found = search(spoilt, *(("--quiet",) if seed % 2 == 1 else ()))
        assert found[:2] == (model, plan), seed
        notes = found[2].splitlines()
        assert len(notes) <= (0 if seed % 2 == 1 else 1), found[2]
        assert all(line.startswith("note: entries kept ") for line in notes)
    kinds = dict(sorted(tried.items()))
    trust_record("damaged entries of caches", {"tried": tried.total(), **kinds})
    assert tried.total() > int(SCALE * 2)

    for path in clean.rglob("*.*"):
        path.write_bytes(path.read_bytes()[:-1])
    found = search(clean)
    assert found[:2] == (model, plan)
    (line,) = found[2].splitlines()
    assert line.endswith("are damaged or of another version; they are computed again")
    assert search(clean) == (model, plan, "")  # and kept
