"""The main job on the trained VGG-16."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

MODELS = Path(__file__).parents[2] / "models"
SHAPE = ("--input-shape", "input=1,240,240,3")
PLAN = (
    "--layer",
    "*block1_conv1*=mono:C=8",
    "--layer",
    "*block1_conv2*=keep",
    "--layer",
    "*block*=bicluster-svd:G=2,H=2,K1=50%,K2=50%",
)
MEMORY_LIMIT = 4 * 2**30


@pytest.fixture(scope="module")
def vgg16() -> Path:
    done = subprocess.run(
        [sys.executable, MODELS / "fetch.py", "vgg16"], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def run(*arguments: object) -> tuple[str, int]:
    """Run the command line in a process of its own; return what it prints and its peak memory."""
    code = (
        "import resource, sys; from onnx_lowrank.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, int(done.stderr.split()[-1]) * 1024


@pytest.mark.network
@pytest.mark.slow
def test_the_main_job(vgg16: Path, tmp_path: Path) -> None:
    out = tmp_path / "lowrank.onnx"
    # Half ranks in every block, fitted to the weights alone, miss the default bound of 20 dB on
    # noise (measured: 16 dB); at 10 dB a coarse fit still stands out from a wrong rewrite, 0 dB.
    printed, memory = run("compress", vgg16, "-o", out, *SHAPE, *PLAN, "--min-sqnr", 10, "--json")
    report = json.loads(printed)
    assert memory < MEMORY_LIMIT
    assert report["verification"]["passed"]

    # The refinement lowers the error of the published construction, layer by layer.
    fits = report["fits"]
    assert len(fits) == 12
    for fit in fits:
        print(f"{fit['name']} {fit['scheme']}: {fit['start_error']:.4f} -> {fit['error']:.4f}")
        assert fit["error"] < fit["start_error"]

    costs = json.loads(run("cost", vgg16, *SHAPE, *PLAN, "--json")[0])
    assert {"kind": "cost", **report["cost"]} == costs
    assert costs["total"]["mac_reduction"] > 2

    original, written = onnx.load(vgg16), onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    assert list(written.graph.input) == list(original.graph.input)
    assert list(written.graph.output) == list(original.graph.output)
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    # A permutation that no neighbour could take is said, and no other is left.
    gathers = {n.name for n in written.graph.node if n.op_type == "Gather" and "block" in n.name}
    assert gathers == {refusal["name"] for refusal in report["refusals"]}
