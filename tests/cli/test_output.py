"""Every command: its JSON fits the schema of its kind, and --quiet leaves nothing else."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_lowrank import documents
from onnx_lowrank.cli import COMMANDS
from onnx_lowrank.cli.output import show_progress

jsonschema = pytest.importorskip("jsonschema")
referencing = pytest.importorskip("referencing")
Cli = Callable[..., Any]

LAYERS = ("--layer", "conv*=channel:macs=0.5")
DATA = ("--data", "data.npz")
TRAIN = (*DATA, "--val", "other.npz", "--epochs", 1, "-o")
# Where a command has two kinds of results, both.
RUNS: dict[str, tuple[object, ...]] = {
    "inspect": ("inspect", "net.onnx"),
    "cost": ("cost", "net.onnx", *LAYERS),
    "compress": ("compress", "net.onnx", *LAYERS, "-o", "new.onnx", "--save-plan", "plan.json"),
    "estimate": ("compress", "net.onnx", "--estimate", *DATA, "--threads", 1),
    "search": (
        *("compress", "net.onnx", *DATA, "--calibrate", "other.npz", "--min-sqnr", 5),
        *("--threads", 1, "-o", "fast.onnx", "--keep-anyway"),
    ),
    "verify": ("verify", "net.onnx", "small.onnx", *DATA),
    "sweep": (
        *("sweep", "net.onnx", "--scheme", "channel:macs=0.5", *DATA, "--network"),
        *("-o", "swept"),
    ),
    "correct": ("correct", "net.onnx", "small.onnx", *DATA, "-o", "right.onnx"),
    "finetune": ("finetune", "net.onnx", "small.onnx", *TRAIN, "tuned.onnx"),
    "cascade": ("cascade", "net.onnx", *LAYERS, *TRAIN, "stages.onnx"),
    "bench": (
        *("bench", "net.onnx", "small.onnx", "--int8", "--threads", 1),
        *("--seconds", 0.05, "--repeats", 8),
    ),
    "latency": ("bench", "net.onnx", "--save-latency", "there.json", "--threads", 1),
    "profile": ("profile", "net.onnx", "--compare", "small.onnx", "--runs", 2, "--threads", 1),
    "report": ("report", "run.json", "-o", "page.html", "--figures", "figures"),
    "doctor": ("doctor",),
}
NEEDS = {"finetune": "torch", "cascade": "torch", "report": "matplotlib", "sweep": "matplotlib"}
MEASURED = {
    *("compress", "search", "verify", "sweep", "correct", "finetune", "cascade", "profile"),
    *("latency", "estimate"),
}
SLOW = {"search", "latency", "estimate"}
KINDS = [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in RUNS]


@pytest.fixture(scope="module")
def workplace(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the network, data and, once it is made, a compressed model."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "net.onnx").write_bytes(classifier.read_bytes())
    rng = np.random.default_rng(0)
    for name, samples in (("data", 40), ("other", 30)):
        image = rng.standard_normal((samples, 3, 12, 12)).astype(np.float32)
        np.savez(folder / f"{name}.npz", image=image, labels=rng.integers(0, 4, samples))
    return folder


@pytest.fixture
def run(cli: Cli, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give a function that runs a command of `RUNS` in the folder."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(workplace / "cache"))
    if not (workplace / "small.onnx").exists():
        made = cli("compress", "net.onnx", *LAYERS, "-o", "small.onnx", "--keep-anyway", "--json")
        (workplace / "run.json").write_text(made.out)

    def call(kind: str, *options: str) -> Any:
        if kind in NEEDS and importlib.util.find_spec(NEEDS[kind]) is None:
            pytest.skip(f"{NEEDS[kind]} is not installed")
        outcome = cli(*RUNS[kind], *options)
        assert outcome.code in (0, 1)
        assert outcome.err == ""
        return outcome

    return call


def check(document: Any, kind: str) -> None:
    """Raise where a document does not fit the schema of its kind."""
    schemas = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in Path(documents.__file__).parent.glob("*.schema.json")
    }
    registry = referencing.Registry().with_resources(
        (name, referencing.Resource.from_contents(schema)) for name, schema in schemas.items()
    )
    schema = schemas[f"{kind}.schema.json"]
    jsonschema.Draft202012Validator(schema, registry=registry).validate(document)


def test_every_command_and_every_kind_is_run_here() -> None:
    assert {command.__name__ for command in COMMANDS} == {str(run[0]) for run in RUNS.values()}
    assert set(documents.VERSIONS) == set(RUNS)


@pytest.mark.parametrize("kind", KINDS)
def test_json_fits_the_schema_of_its_kind(run: Cli, kind: str, workplace: Path) -> None:
    found = json.loads(run(kind, "--json").out)
    assert found["kind"] == kind
    check(found, kind)
    if kind in MEASURED:
        assert found["provider"] == "cpu"
        assert found["threads"] == (1 if "--threads" in RUNS[kind] else None)
        assert found["machine"] == documents.describe_machine()
    if kind == "sweep":
        check(json.loads((workplace / "swept" / "sweep.json").read_text()), kind)
    if kind == "latency":
        check(json.loads((workplace / "there.json").read_text()), kind)
    if kind == "compress":
        check(json.loads((workplace / "plan.json").read_text()), "plan")
    if kind == "report":
        assert found["bytes"] == (workplace / "page.html").stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_quiet_prints_nothing(run: Cli, kind: str) -> None:
    assert run(kind, "--quiet").out == ""


def test_quiet_leaves_json_and_errors(run: Cli, cli: Cli) -> None:
    assert json.loads(run("inspect", "--quiet", "--json").out)["kind"] == "inspect"
    outcome = cli("inspect", "missing.onnx", "--quiet")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")


def shown(monkeypatch: pytest.MonkeyPatch, *, quiet: bool) -> str:
    """Return what a terminal of 80 columns gets of two stages, without control sequences."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    text = io.StringIO()
    with redirect_stderr(text), show_progress(quiet=quiet) as progress:
        for stage in ("fitting a layer as bicluster-svd:G=2,H=2,K1=8,K2=16", "timing candidates"):
            for done in range(3):
                progress(stage, done, 3)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())


def test_progress_tells_the_step_the_time_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(monkeypatch, quiet=False)
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert all(len(line) <= 80 for line in lines)
    assert re.search(r"timing candidates .*\d:\d\d:\d\d · (-:--:--|\d:\d\d:\d\d) left", lines[-1])
    assert shown(monkeypatch, quiet=True) == ""


def test_the_speed_of_one_stage_is_not_that_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes by 10 s a step, then by 1000: two steps of the second are 2000 s."""
    from rich import progress as rich_progress

    now = [0.0]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    bars: list[rich_progress.Progress] = []

    class Watched(rich_progress.Progress):
        def __init__(self, *columns: Any, **options: Any) -> None:
            super().__init__(*columns, get_time=lambda: now[0], **options)
            bars.append(self)

    monkeypatch.setattr(rich_progress, "Progress", Watched)
    with redirect_stderr(io.StringIO()), show_progress() as progress:
        for done in range(4):
            progress("fitting", done, 4)
            now[0] += 10
        for done in range(3):
            progress("timing", done, 4)
            now[0] += 1000
        assert bars[0].tasks[0].time_remaining == 2000
