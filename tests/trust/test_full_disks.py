"""The command line where the disk of temporary or of kept files is full or read-only.

The disks are real ones in memory, mounted where only the command and what it starts see them.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import onnx
import pytest
from workplace import COMMAND, by_operations, environment, make

LAYER = ("--layer", "conv2=tucker2:R1=4,R2=4")
OUTPUT = ("net.onnx", "-o", "new.onnx")
SEARCH = ("compress", *OUTPUT, "--data", "data.npz", "--min-sqnr", "5", "--keep-anyway")
SEARCH = (*SEARCH, "--layer", "größe=keep", "--layer", "fc=keep")
TRAIN = ("--data", "data.npz", "--val", "other.npz", "--epochs", "1")
CALIBRATE = ("--calibrate", "other.npz", "--min-sqnr", "0")
COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": ("compress", *OUTPUT, *LAYER, *CALIBRATE),
    "search": SEARCH,
    "sweep": ("sweep", "net.onnx", "-o", "results", "--scheme", "channel:R=4", *TRAIN[:2]),
    "cascade": ("cascade", *OUTPUT, *LAYER, *TRAIN),
}
# Mounts a disk in the folder $1 by the options $2, runs the rest, and lists what is left there.
SCRIPT = """
folder=$1 options=$2 listing=$3; shift 3
mount -t tmpfs -o "$options" none "$folder" || exit 99
"$@"; code=$?
ls -A "$folder" > "$listing"
exit $code
"""
KEPT = "keeps nothing more for later ones; free space there or choose another folder"


@cache
def prefix() -> tuple[str, ...]:
    """Return the words before a command that may mount disks of its own; skip without them."""
    reason = "no unshare"
    for words in (("unshare", "-m"), ("unshare", "-Urm")):
        command = [*words, "sh", "-c", "mount -t tmpfs none /mnt"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = str(getattr(error, "stderr", None) or error)
        else:
            return words
    pytest.skip(f"this user may mount no disk of its own: {reason.strip()}")


def run_on_disk(
    place: Path, disk: Path, options: str, *arguments: str, **changes: str
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command with a disk mounted; return its result and the names left on the disk."""
    disk.mkdir(exist_ok=True)
    listing = place.parent / "listing"
    result = subprocess.run(
        [*prefix(), "sh", "-c", SCRIPT, "sh", disk, options, listing, *COMMAND, *arguments],
        cwd=place,
        env=environment(place, **changes),
        capture_output=True,
        text=True,
        check=False,
    )
    # onnxruntime and torch keep files of their own among the temporary ones.
    left = {name for name in listing.read_text().split() if "torch" not in name and name != ".ses"}
    return result, left


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


# Of one page: full at once; of six: full in the middle.
@pytest.mark.parametrize(
    ("name", "size"), [*((name, "4k") for name in COMMANDS), ("plan", "24k"), ("cascade", "24k")]
)
def test_no_room_for_temporary_files_is_one_line(place: Path, name: str, size: str) -> None:
    if name == "cascade":
        pytest.importorskip("torch")
    if name == "sweep":
        pytest.importorskip("matplotlib")
    scratch = place.parent / "scratch"
    before = {path.name for path in place.iterdir()}
    result, left = run_on_disk(place, scratch, f"size={size}", *COMMANDS[name], TMPDIR=str(scratch))
    assert left == set()
    made = {path.name for path in place.iterdir()} - before - {"cache"}
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line or "written" in line
    assert "; free space" in line
    assert "TMPDIR" in line
    assert made == set()
    assert not list(place.rglob(".partial-*"))


@pytest.mark.parametrize(
    ("options", "more"),
    [("size=96k", ("--jobs", "2")), ("ro", ())],
    ids=["nearly full", "read-only"],
)
def test_a_search_goes_on_without_room_for_what_it_keeps(
    place: Path, options: str, more: tuple[str, ...]
) -> None:
    scratch = place.parent / "scratch"
    scratch.mkdir()
    command = (*SEARCH, *more, *by_operations(place))
    result, left = run_on_disk(place, place / "cache", options, *command, TMPDIR=str(scratch))
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("note: ")
    assert KEPT in line
    assert left == (set() if options == "ro" else {"search"})
    assert [path.name for path in scratch.iterdir() if path.name != ".ses"] == []
    onnx.checker.check_model(onnx.load(place / "new.onnx"), full_check=True)


def test_a_cascade_goes_on_without_room_for_its_stages(place: Path) -> None:
    pytest.importorskip("torch")
    command = (*COMMANDS["cascade"], "--checkpoint", "stages")
    result, _ = run_on_disk(place, place / "stages", "size=4k", *command)
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert KEPT in line
    onnx.checker.check_model(onnx.load(place / "new.onnx"), full_check=True)
