"""Ends long commands at random moments, and checks what is left.

Run as a program, it prints the counts: ``python tests/trust/kills.py KILLS [SEED]``.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import onnx
from workplace import make, run, start

LAYERS = ("--layer", "conv2=tucker2:R1=4,R2=4")
DATA = ("--data", "data.npz")
TRAIN = (*DATA, "--val", "other.npz", "--epochs", "1")
# Command -> its arguments and the file that it writes.
LONG: dict[str, tuple[tuple[str, ...], str]] = {
    "plan": (("compress", "net.onnx", *LAYERS, *DATA, "--min-sqnr", "0", "-o", "out"), "out"),
    "budget": (("compress", "net.onnx", *DATA, "--macs", "0.9", "--objective", "macs",
                "--min-sqnr", "1", "--keep-anyway", "-o", "out"), "out"),
    "correct": (("correct", "net.onnx", "small.onnx", *DATA, "-o", "out"), "out"),
    "bench": (("bench", "net.onnx", "--seconds", "0.1", "--repeats", "8"), ""),
    "sweep": (("sweep", "net.onnx", "--scheme", "channel:macs=0.5", *DATA, "-o", "swept"), ""),
    "report": (("report", "run.json", "-o", "out"), ""),
    "finetune": (("finetune", "net.onnx", "small.onnx", *TRAIN, "-o", "out"), ""),
    "cascade": (("cascade", "net.onnx", *LAYERS, *TRAIN, "-o", "out"), ""),
}  # fmt: skip
NEEDS = {"finetune": "torch", "cascade": "torch", "report": "matplotlib", "sweep": "matplotlib"}
# Of these, the same command must give the same bytes again. What is timed or trained does not.
REPEATABLE = {"plan", "correct"}
# Until Python has come to the first line of this package, nothing of it can answer.
STARTING = 0.3


def prepare(folder: Path) -> None:
    """Make what the commands read."""
    make(folder)
    made = run(folder, "compress", "net.onnx", *LAYERS, "-o", "small.onnx", "--min-sqnr", "0")
    assert made.returncode == 0, made.stderr
    json = run(folder, "compress", "net.onnx", *LAYERS, "-o", "x.onnx", "--json", "--keep-anyway")
    (folder / "run.json").write_text(json.stdout)
    (folder / "x.onnx").unlink()


def kill_at_random(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kill commands in turn and count how it ended; raise AssertionError where harm was done."""
    prepare(folder)
    rng = random.Random(seed)
    names = [n for n in LONG if n not in NEEDS or importlib.util.find_spec(NEEDS[n])]
    counts: Counter[str] = Counter()
    for place, name in enumerate(names):
        here = folder.parent / name
        shutil.copytree(folder, here)
        arguments, output = LONG[name]
        began = time.monotonic()
        whole = run(here, *arguments)
        seconds = time.monotonic() - began
        assert whole.returncode in (0, 1), (name, whole.stderr)
        expected = (here / output).read_bytes() if output else b""
        for turn in range(kills // len(names) + (place < kills % len(names))):
            if turn % 2 == 0:  # the others find what the one before has kept
                shutil.rmtree(here / "cache", ignore_errors=True)
            number = rng.choice((signal.SIGINT, signal.SIGKILL))
            old = rng.random() < 0.5
            if output:
                (here / output).unlink(missing_ok=True)
                if old:
                    (here / output).write_bytes(b"old")
            ended = _kill(here, arguments, number, rng.uniform(0, seconds))
            counts[f"{signal.Signals(number).name}: {ended}"] += 1
            if output and (here / output).exists():
                content = (here / output).read_bytes()
                if name == "report" and content != b"old":
                    assert content.rstrip().endswith(b"</html>")
                    counts["outputs complete"] += 1
                elif not (old and content == b"old"):
                    onnx.checker.check_model(onnx.load_model_from_string(content))
                    counts["outputs complete"] += 1
                else:
                    counts["outputs as they were"] += 1
            elif output:
                assert not old, f"{name}: the old output is gone"
                counts["outputs absent"] += 1
        again = run(here, *arguments)
        # The verdict on a speed is of a measurement, and may differ.
        codes = (0, 1) if name == "budget" else (whole.returncode,)
        assert again.returncode in codes, (name, again.stderr)
        if name in REPEATABLE:
            assert (here / output).read_bytes() == expected, name
        counts["commands run through afterwards"] += 1
    return counts


def _kill(folder: Path, arguments: tuple[str, ...], number: int, delay: float) -> str:
    process = start(folder, *arguments)
    try:
        _, err = process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    text = err.decode(errors="replace")
    what = (arguments[0], delay, process.returncode, text)
    if process.returncode in (0, 1) and not text:
        return "had finished"
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL, what
        return "ended"
    if delay < STARTING and process.returncode != 130:
        assert "onnx_lowrank/" not in text.replace("onnx_lowrank/__init__", ""), what
        return "ended while Python started"
    assert process.returncode == 130, what
    assert text.count("\n") == 1, what
    assert "Traceback" not in text, what
    return "one line and exit code 130"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asked, given = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
        for what, count in sorted(kill_at_random(asked, given, Path(scratch, "base")).items()):
            print(f"{count:5} {what}")
