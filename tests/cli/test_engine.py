"""--engine: refused where it does not work, in one line, before anything is written."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_lowrank.cli import COMMANDS
from onnx_lowrank.errors import ProviderError
from onnx_lowrank.runtime import require_provider

Cli = Callable[..., Any]
DATA = ("--data", "data.npz")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
LAYERS = ("--layer", "conv*=channel:macs=0.5")
# Every way in which a command runs a model in an engine.
RUNS: dict[str, tuple[object, ...]] = {
    "verify": ("verify", "net.onnx", "net.onnx", *DATA),
    "bench": ("bench", "net.onnx", "--seconds", 0.01),
    "bench int8": ("bench", "net.onnx", "--int8", "--seconds", 0.01),
    "latency": ("bench", "net.onnx", "--save-latency", "out.json"),
    "profile": ("profile", "net.onnx", "--runs", 2),
    "compress": ("compress", "net.onnx", *LAYERS, "-o", "out.onnx", "--save-plan", "plan.json"),
    "calibration": ("compress", "net.onnx", *LAYERS, "--calibrate", "data.npz", "-o", "out.onnx"),
    "search": ("compress", "net.onnx", *DATA, "--min-sqnr", 5, "-o", "out.onnx"),
    "sweep": ("sweep", "net.onnx", "--scheme", "channel:macs=0.5", *DATA, "-o", "out"),
    "correct": ("correct", "net.onnx", "small.onnx", *DATA, "-o", "out.onnx"),
}


def lacks_cuda() -> str | None:
    try:
        require_provider("cuda")
    except ProviderError as error:
        return str(error)
    return None


LACKS_CUDA = lacks_cuda()


@pytest.fixture
def workplace(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with the network and samples, and go there."""
    (tmp_path / "net.onnx").write_bytes(classifier.read_bytes())
    image = np.random.default_rng(0).standard_normal((12, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=image)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def compressed(cli: Cli, workplace: Path) -> Path:
    """Give the folder with small.onnx, a compressed form of the network."""
    cli("compress", "net.onnx", *LAYERS, "-o", "small.onnx", "--keep-anyway", "--quiet")
    return workplace


def test_every_command_with_the_option_is_run_here() -> None:
    with_option = {c.__name__ for c in COMMANDS if "engine" in inspect.signature(c).parameters}
    assert with_option == {str(run[0]) for run in RUNS.values()}


@pytest.mark.skipif(LACKS_CUDA is None, reason="CUDA works here")
@pytest.mark.parametrize("name", RUNS)
def test_a_provider_that_does_not_work_is_refused_before_the_work(
    cli: Cli, workplace: Path, name: str
) -> None:
    outcome = cli(*RUNS[name], "--provider", "cuda", "--json")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err == f"error: {LACKS_CUDA}\n"
    assert "install" in outcome.err  # the remedy
    assert {path.name for path in workplace.iterdir()} == {"net.onnx", "data.npz"}


@pytest.mark.parametrize("name", RUNS)
def test_an_unknown_engine_is_refused_before_the_work(cli: Cli, workplace: Path, name: str) -> None:
    outcome = cli(*RUNS[name], "--engine", "gpu")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: unknown engine 'gpu'; choose one of cpu, cuda, openvino\n"
    assert {path.name for path in workplace.iterdir()} == {"net.onnx", "data.npz"}


ONNXRUNTIME_ALONE = {"profile": "a profile", "sweep": "a sweep", "correct": "a correction"}


@pytest.mark.parametrize("name", RUNS)
def test_openvino_is_refused_before_the_work(
    cli: Cli, workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By what onnxruntime alone can do; elsewhere, as here, where it is not installed."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    outcome = cli(*RUNS[name], "--engine", "openvino", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    if task := ONNXRUNTIME_ALONE.get(name):
        why = f"{task} takes onnxruntime, not openvino; choose the engine cpu or cuda"
    else:
        why = "OpenVINO is not installed; pip install 'onnx_lowrank[openvino]'"
    assert outcome.err == f"error: {why}\n"
    assert {path.name for path in workplace.iterdir()} == {"net.onnx", "data.npz"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RUNS if n not in ("bench int8", *ONNXRUNTIME_ALONE)])
def test_a_command_runs_in_openvino(cli: Cli, workplace: Path, name: str) -> None:
    pytest.importorskip("openvino")
    outcome = cli(*RUNS[name], "--engine", "openvino", "--json")
    assert outcome.code in (0, 1)  # 1: out of tolerance
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert found["provider"] == "openvino"
    assert "openvino" in found["machine"]["versions"]
    if name == "search" and not found["search"]["layers"]:
        assert found["verification"] is None  # nothing is faster here: there is no new model
    elif name in ("compress", "calibration", "search"):
        checked = found["verification"]["providers"]
        assert [each for each, said in checked.items() if said["checked"]] == ["openvino"]
    if name in ("calibration", "search"):
        said = "statistics for fits were taken in onnxruntime on CPU, of the same network"
        assert said in found["notes"]


def test_portable_nodes_are_not_for_openvino(cli: Cli, workplace: Path) -> None:
    pytest.importorskip("openvino")
    portable = ("--engine", "openvino", "--lowering", "portable")
    for name in ("compress", "search"):
        outcome = cli(*RUNS[name], *portable)
        assert outcome.code == 2
        assert outcome.err.startswith("error: the engine openvino does not run portable nodes; ")


def test_verify_says_where_it_ran_and_what_it_left_out(cli: Cli, workplace: Path) -> None:
    found = json.loads(cli(*RUNS["verify"], "--engine", "cpu", "--json").out)
    assert found["provider"] == "cpu"
    assert found["providers"]["cpu"]["session"] == {}
    assert found["providers"]["cuda"] == {"checked": False, "reason": "not asked for"}


class Pretended:
    """A session on the CPU that says of itself what one on CUDA would say."""

    def __init__(self, real: Any, options: dict[str, str]) -> None:
        self._real, self._options = real, options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: self._options}


@pytest.fixture
def opened(compressed: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give what each session is asked to run on; those asked for CUDA run on the CPU."""
    ort = importlib.import_module("onnxruntime")
    real = ort.InferenceSession
    asked: list[Any] = []

    def open_(model: Any, settings: Any, providers: list[Any]) -> Any:
        asked.append(providers[0])
        session = real(model, settings, providers=[CPU])
        return session if isinstance(providers[0], str) else Pretended(session, providers[0][1])

    monkeypatch.setattr(ort, "InferenceSession", open_)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    return asked


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("verify", ()),
        ("compress", ()),
        ("calibration", ()),
        ("calibration", ("--asymmetric",)),
        ("sweep", ("--network",)),
        ("correct", ()),
    ],
)
def test_every_session_of_a_check_is_on_the_provider_without_tf32(
    cli: Cli, opened: list[Any], name: str, options: tuple[str, ...]
) -> None:
    """As far as the CPU can tell: where the sessions would be."""
    outcome = cli(*RUNS[name], *options, "--provider", "cuda", "--json")
    assert outcome.code in (0, 1)  # 1: out of tolerance
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert found["provider"] == "cuda"
    assert len(opened) >= 3  # the smallest model, to see that CUDA works, then two or more
    for provider, settings in opened:
        assert provider == CUDA
        assert settings["use_tf32"] == "0"
    if name == "verify":
        assert found["providers"]["cuda"]["session"]["use_tf32"] == "0"
        assert found["providers"]["cuda"]["session"]["cudnn_conv_algo_search"] == "EXHAUSTIVE"


@pytest.mark.skipif(LACKS_CUDA is not None, reason=f"needs a GPU: {LACKS_CUDA}")
@pytest.mark.parametrize("name", [n for n in RUNS if n not in ("latency", "search")])
def test_a_command_runs_on_cuda(cli: Cli, compressed: Path, name: str) -> None:
    outcome = cli(*RUNS[name], "--provider", "cuda", "--json")
    assert outcome.code in (0, 1)  # 1: out of tolerance
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert found["provider"] == "cuda"
    sessions = {
        "verify": lambda: [found["providers"]["cuda"]["session"]],
        "bench": lambda: [setting["session"] for setting in found["settings"]],
        "profile": lambda: [found["session"]],
    }
    for session in sessions.get(name, list)():
        assert session["use_tf32"] == "0"
        assert session["cudnn_conv_algo_search"] == "EXHAUSTIVE"
