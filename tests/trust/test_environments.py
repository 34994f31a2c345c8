"""The command line where something that every machine has is missing, full, closed or read-only."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from workplace import COMMAND, by_operations, environment, make, run, start

COMPRESS = ("compress", "net.onnx", "-o", "new.onnx", "--layer", "conv2=tucker2:R1=4,R2=4")
COMPRESS = (*COMPRESS, "--min-sqnr", "0")
SEARCH = ("compress", "net.onnx", "-o", "new.onnx", "--data", "data.npz", "--min-sqnr", "5")
COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "version": ("--version",),
    "inspect": ("inspect", "net.onnx"),
    "cost": ("cost", "net.onnx", "--layer", "conv2=tucker2:R1=4,R2=4"),
    "compress": COMPRESS,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


def one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert ";" in result.stderr
    for word in words:
        assert word in result.stderr


def works(result: subprocess.CompletedProcess[str], *, prints: bool = True) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    if prints:
        assert result.stdout != ""


def nothing_left(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir() if p.name != "cache") == [
        "data.npz",
        "net.onnx",
        "other.npz",
    ]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"HOME": None, "ONNX_LOWRANK_CACHE": None, "XDG_CACHE_HOME": None},
        {"HOME": "/proc/nonexistent", "ONNX_LOWRANK_CACHE": "/proc/none"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"NO_COLOR": "1", "TERM": "dumb"},
        {"TERM": None, "COLUMNS": "0"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_most_commands_do_not_need_may_be_missing(
    place: Path, name: str, changes: dict[str, str | None]
) -> None:
    works(run(place, *COMMANDS[name], env=environment(place, **changes)))


def test_names_that_a_stream_cannot_encode_are_escaped(place: Path) -> None:
    env = environment(place, PYTHONIOENCODING="ascii")
    assert r"gr\xf6\xdfe" in run(place, "inspect", "net.onnx", env=env).stdout
    one_line(run(place, "inspect", "größe.onnx", env=env), r"gr\xf6\xdfe.onnx")


def test_without_a_home_a_search_says_what_to_set(place: Path) -> None:
    """Nor an entry among the users: as a container runs under any number."""
    code = (
        "import pwd, sys\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from onnx_lowrank.cli import main; main()"
    )
    env = environment(place, HOME=None, ONNX_LOWRANK_CACHE=None, XDG_CACHE_HOME=None)
    result = subprocess.run(
        [COMMAND[0], "-c", code, *SEARCH],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    one_line(result, "home folder", "ONNX_LOWRANK_CACHE")
    nothing_left(place)


def test_a_search_goes_on_without_a_cache_that_cannot_be_made(place: Path) -> None:
    command = (*SEARCH, "--layer", "größe=keep", "--layer", "fc=keep", *by_operations(place))
    env = environment(place, ONNX_LOWRANK_CACHE="/proc/none")
    result = run(place, *command, env=env, timeout=600)
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("note: the folder of kept results cannot be written to")
    assert "ONNX_LOWRANK_CACHE" in line
    onnx.checker.check_model(onnx.load(place / "new.onnx"), full_check=True)


@pytest.mark.parametrize("folder", ["/proc/nonexistent", "/proc"])
def test_without_a_place_for_temporary_files_there_is_one_line(place: Path, folder: str) -> None:
    """Python falls back to /tmp and the working folder, unless they are none either."""
    code = (
        "import tempfile\n"
        f"tempfile._candidate_tempdir_list = lambda: [{folder!r}]\n"
        "from onnx_lowrank.cli import main; main()"
    )
    result = subprocess.run(
        [COMMAND[0], "-c", code, *SEARCH],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    one_line(result, "TMPDIR")
    nothing_left(place)
    works(run(place, *COMPRESS, env=environment(place, TMPDIR=folder)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_goes_away_is_no_error(place: Path, name: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        result = run(place, *COMMANDS[name], stdout=write)
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_stdout_that_is_full_is_one_line(place: Path, name: str) -> None:
    with Path("/dev/full").open("w") as full:
        one_line(run(place, *COMMANDS[name], stdout=full), "No space left on device")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("name", COMMANDS)
def test_closed_streams_are_no_error(place: Path, name: str, closed: str) -> None:
    """Nor does what is printed end up in a file that got the number of a stream."""
    command = " ".join(f"'{word}'" for word in (*COMMAND, *COMMANDS[name]))
    result = subprocess.run(
        ["sh", "-c", f"{command} {closed}"],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    works(result, prints=">&-" not in closed.replace("2>&-", ""))
    if name == "compress":
        onnx.checker.check_model(onnx.load(place / "new.onnx"), full_check=True)


@pytest.mark.parametrize("device", ["closed", "/dev/full"])
def test_errors_that_cannot_be_printed_keep_their_code(place: Path, device: str) -> None:
    command = " ".join((*COMMAND, "inspect", "none.onnx"))
    target = "2>&-" if device == "closed" else f"2>{device}"
    result = subprocess.run(
        ["sh", "-c", f"{command} {target}"],
        cwd=place,
        env=environment(place),
        check=False,
    )
    assert result.returncode == 2


@pytest.mark.parametrize("name", ["help", "version", "inspect", "cost", "compress"])
def test_a_working_folder_that_was_deleted(place: Path, tmp_path: Path, name: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [str(place / w) if w.endswith(".onnx") else w for w in COMMANDS[name]]
    command = " ".join(f"'{word}'" for word in (*COMMAND, *words))
    result = subprocess.run(
        ["sh", "-c", f"rmdir ../gone && {command}"],
        cwd=gone,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        one_line(result, "working folder")
    else:
        works(result)
    gone.mkdir()
    result = subprocess.run(
        ["sh", "-c", f"rmdir ../gone && {' '.join(COMMAND)} inspect net.onnx"],
        cwd=gone,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    one_line(result, "net.onnx")


def bounded(size: int) -> Callable[[], None]:
    """Return what makes every file end at a size: as a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_no_room_for_the_output_is_one_line(place: Path) -> None:
    whole = run(place, *COMPRESS)
    works(whole)
    before = (place / "new.onnx").read_bytes()
    result = run(place, *COMPRESS, preexec_fn=bounded(1000))
    one_line(result, "File too large")
    assert (place / "new.onnx").read_bytes() == before
    (place / "new.onnx").unlink()
    nothing_left(place)


def test_no_room_in_the_cache_is_one_line(place: Path) -> None:
    result = run(place, *SEARCH, preexec_fn=bounded(2000))
    one_line(result, "File too large")
    nothing_left(place)
    assert not list((place / "cache").rglob(".*"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "garbage", "tcp://", "a\nb"])
def test_a_scheduler_that_is_not_there_is_one_line_within_seconds(
    place: Path, address: str
) -> None:
    pytest.importorskip("distributed")
    run(place, "--version")  # the files are read once before the clock starts
    start = time.monotonic()
    one_line(run(place, *SEARCH, "--dask", address), "Dask scheduler")
    assert time.monotonic() - start < 8  # 5 s on a machine that does nothing else
    nothing_left(place)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_leave_no_temporary_file(
    place: Path, tmp_path: Path, number: int, code: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = start(place, *SEARCH, TMPDIR=str(scratch))
    while not any(p.is_dir() for p in scratch.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count(b"\n")) == (code, 1)
    # onnxruntime keeps a file of its own there.
    assert [p.name for p in scratch.iterdir() if p.name != ".ses"] == []
    nothing_left(place)


def processes(session: int) -> list[int]:
    """Return the workers of joblib in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and b"popen_loky" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


# While workers import what they need, and when they have begun to fit.
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to find workers in")
def test_an_interruption_from_the_terminal_is_one_line(
    place: Path, tmp_path: Path, begun: bool
) -> None:
    """Every process of the command gets it, not the first one alone."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = (*SEARCH, "--jobs", "2", *by_operations(place))
    process = start(place, *command, start_new_session=True, TMPDIR=str(scratch))
    while process.poll() is None:
        fits = list((place / "cache/search").glob("*.npz"))
        if len(processes(process.pid)) == 2 and (fits or not begun):
            break
        time.sleep(0.01)
    if not begun:
        time.sleep(0.2)  # Python itself has started, and reads what it imports
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err == b"error: interrupted; every file is whole or as it was\n"
    assert process.returncode == 130
    assert processes(process.pid) == []
    assert [p.name for p in scratch.iterdir() if p.name != ".ses"] == []
    assert not list(place.rglob(".partial-*"))
    nothing_left(place)


def test_an_ignored_signal_stays_ignored(place: Path) -> None:
    process = start(place, *COMPRESS, ignored=[signal.SIGINT])
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0
