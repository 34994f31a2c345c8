"""Bad data on the command line: one line that names the fault, exit code 2, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Cli = Callable[..., Any]
SHAPE = (3, 12, 12)


def pictures(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (15, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"good{number}.png")
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    return folder


def corrupt(folder: Path) -> Path:
    pictures(folder, 5)
    whole = (folder / "good0.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    return folder


def only_corrupt(folder: Path) -> Path:
    folder.mkdir()
    (folder / "none.png").write_bytes(b"")
    return folder


def arrays(
    *, value: float | None = None, scale: float = 1.0, shape: Sequence[int] = SHAPE, **more: Any
) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        x = scale * np.random.default_rng(1).standard_normal((6, *shape))
        if value is not None:
            x[3, 1, 2, 2] = value
        np.savez(path.with_suffix(".npz"), image=x.astype(np.float32), **more)
        return path.with_suffix(".npz")

    return make


BAD: dict[str, tuple[Callable[[Path], Path], list[object], str]] = {
    "missing": (lambda path: path, [], "no data at"),
    "empty folder": (empty, [], "no JPEG or PNG images in"),
    "only corrupt": (only_corrupt, [], "the data hold no sample; 1 could not be read, the first: "),
    "strict": (corrupt, ["--strict"], "cannot read image text.jpg: "),
    "corrupt and too few": (corrupt, ["--limit", 6], "only 5 were found; 2 could not be read"),
    "too few": (arrays(), ["--limit", 7], "7 samples were asked for, but there are only 6"),
    "shape": (arrays(shape=(3, 12, 10)), [], r"shape [3, 12, 10] does not fit input 'image'"),
    "channels": (arrays(shape=(1, 12, 12)), [], r"shape [1, 12, 12] does not fit input 'image'"),
    "NaN": (arrays(value=np.nan), [], "sample 3: NaN or Inf in input 'image'"),
    "Inf": (arrays(value=-np.inf), [], "sample 3: NaN or Inf in input 'image'"),
    "label too large": (
        arrays(labels=np.array([0, 1, 2, 3, 0, 4])),
        [],
        "label 4 is out of range: the model has 4 classes",
    ),
    "label negative": (
        arrays(labels=np.array([0, 1, 2, 3, 0, -1])),
        [],
        "labels must be whole numbers from 0, not -1",
    ),
    "labels of another number": (arrays(labels=np.zeros(5, int)), [], "but there are 6 samples"),
}
COMMANDS: dict[str, list[object]] = {
    "verify": [],
    "compress": ["--layer", "conv2=mono:C=4", "-o", "result"],
    "sweep": ["--layer", "conv2", "--scheme", "mono:C=4", "--network", "-o", "result"],
}


def call(cli: Cli, command: str, model: Path, data: Path, *more: object) -> Any:
    models = [model, model] if command == "verify" else [model]
    return cli(command, *models, *COMMANDS[command], "--data", data, *more)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_one_line_and_nothing_is_left(
    cli: Cli, classifier: Path, tmp_path: Path, workplace: Path, command: str, fault: str
) -> None:
    make, options, message = BAD[fault]
    outcome = call(cli, command, classifier, make(tmp_path / "data"), *options)
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("command", ["compress", "sweep"])
@pytest.mark.parametrize("fault", ["empty folder", "strict", "shape", "NaN"])
def test_calibration_data_are_held_to_the_same(
    cli: Cli, classifier: Path, tmp_path: Path, workplace: Path, command: str, fault: str
) -> None:
    make, options, message = BAD[fault]
    held_out = arrays()(tmp_path / "held_out")
    if fault == "strict":  # both sources are folders
        held_out = pictures(tmp_path / "pictures", 3, seed=1)
    bad = make(tmp_path / "data")
    outcome = call(cli, command, classifier, held_out, "--calibrate", bad, *options)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert message in line
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("command", ["compress", "sweep"])
def test_activations_that_overflow_are_named(
    cli: Cli, classifier: Path, tmp_path: Path, workplace: Path, command: str
) -> None:
    held_out = arrays()(tmp_path / "held_out")
    huge = arrays(scale=5e37)(tmp_path / "huge")
    outcome = call(cli, command, classifier, held_out, "--calibrate", huge)
    assert (outcome.code, outcome.out) == (2, "")
    assert "layer 'conv2': NaN or Inf in its input 'a1'" in outcome.err
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_unreadable_images_are_skipped_named_and_counted(
    cli: Cli, classifier: Path, tmp_path: Path, command: str
) -> None:
    outcome = call(cli, command, classifier, corrupt(tmp_path / "data"), "--json")
    assert (outcome.code in (0, 1), outcome.err) == (True, "")
    report = json.loads(outcome.out)
    report = report["verification"] if command == "compress" else report
    (note,) = (note for note in report["notes"] if "unreadable" in note)
    assert "2 unreadable and skipped: text.jpg: " in note
    assert "; torn.png: " in note
    assert report["held_out_images" if command == "sweep" else "samples"] == 5
    words = call(cli, command, classifier, tmp_path / "data").out
    assert "2 unreadable and skipped: text.jpg: " in " ".join(words.split())


def test_unreadable_calibration_images_are_told_too(
    cli: Cli, classifier: Path, tmp_path: Path
) -> None:
    bad, good = corrupt(tmp_path / "bad"), pictures(tmp_path / "good", 3, seed=1)
    outcome = call(cli, "compress", classifier, good, "--calibrate", bad, "--json")
    (note,) = json.loads(outcome.out)["notes"]
    assert note.startswith("calibration: 2 unreadable and skipped: text.jpg: ")
    outcome = call(cli, "sweep", classifier, good, "--calibrate", bad, "--json", "-o", "swept")
    assert (outcome.code, outcome.err) == (0, "")
    (note,) = json.loads(outcome.out)["notes"]
    assert note.startswith("calibration: 2 unreadable and skipped: text.jpg: ")


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_what_is_timed_skips_nothing(
    cli: Cli, classifier: Path, tmp_path: Path, command: str
) -> None:
    outcome = cli(command, classifier, "--data", only_corrupt(tmp_path / "data"))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: cannot read image none.png: ")
    assert len(outcome.err.splitlines()) == 1


def test_code_of_the_data_that_ends_the_program_is_bad_input(
    cli: Cli, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not exit 0, nor that of a closed pipe: also where it is no call but a conversion."""
    (tmp_path / "ending.py").write_text(
        "import sys\n"
        "class Ending:\n"
        "    def __array__(self, *_, **__):\n"
        "        sys.exit(0)\n"
        "def feeds():\n"
        "    return [{'image': Ending()}]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = call(cli, "verify", classifier, Path("ending:feeds"))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: code of the data or the score ended the program; repair it\n"


def test_labels_come_from_where_the_user_says(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    for name in ("3", "1"):
        pictures(folder / name, 2, seed=int(name))
    outcome = call(cli, "verify", classifier, folder)
    assert "its label is not clear" in outcome.err
    none = json.loads(call(cli, "verify", classifier, folder, "--labels", "none", "--json").out)
    assert none["accuracy"] == {}
    names = tmp_path / "names.txt"
    names.write_text("0\n1\n2\n3\n")
    listed = json.loads(call(cli, "verify", classifier, folder, "--labels", names, "--json").out)
    assert listed["accuracy"]["samples"] == 4
