"""Every option of every command, from the signatures themselves, with what nobody should give.

A numeric option gets what is no number, is not finite or is out of any range; an option that is
written to gets each input, each other output, and what is no regular file. The command ends with 0,
1 or 2, with one line where it is 2, never with a traceback; no input changes, and nothing is left.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from onnx_lowrank.cli import COMMANDS
from onnx_lowrank.cli.gate import SOURCES, outputs_of

Cli = Callable[..., Any]

LAYERS = ("--layer", "conv2=channel:R=8")
DATA = ("--data", "data.npz")
TRAIN = (*DATA, "--val", "val.npz", "--limit", 8)
# A call of each command that works, quick, with an input in every place that takes one.
CALLS: dict[str, tuple[object, ...]] = {
    "compress": ("net.onnx", *LAYERS, *DATA, "--calibrate", "val.npz", "-o", "new.onnx"),
    "inspect": ("net.onnx",),
    "cost": ("net.onnx", *LAYERS),
    "verify": ("net.onnx", "small.onnx", *DATA, "--limit", 4),
    "sweep": ("net.onnx", "--layer", "fc", "--scheme", "svd:R=1", *DATA, "-o", "swept"),
    "correct": ("net.onnx", "small.onnx", *DATA, "--limit", 4, "-o", "new.onnx"),
    "finetune": ("net.onnx", "small.onnx", *TRAIN, "--epochs", 1, "-o", "new.onnx"),
    "cascade": ("net.onnx", *LAYERS, *TRAIN, "-o", "new.onnx"),
    "bench": ("net.onnx", "small.onnx", "--seconds", 0.001, "--repeats", 8, "--threads", 1),
    "profile": ("net.onnx", "--compare", "small.onnx", "--runs", 2, "--threads", 1),
    "report": ("run.json", "-o", "page.html"),
    "doctor": (),
}
NEEDS = {"finetune": "torch", "cascade": "torch", "report": "matplotlib", "sweep": "matplotlib"}
HUGE = "1" + "0" * 400
NOT_FINITE = ("nan", "inf", "-inf", HUGE)
NUMBERS = (*NOT_FINITE, "-1", "0", "-0.5", "1e999", "-" + HUGE, "9" * 5000, "one", "", "0x10")
TEXTS_OF_NUMBERS = ("threads", "batch")  # "1,2,4" where several make a sweep
TRIED: Counter[str] = Counter()
FILES = (*("net.onnx", "small.onnx", "data.npz", "val.npz", "plan.json", "run.json"), "names.txt")


def numeric() -> Iterator[tuple[str, str, str]]:
    """Yield command, option and kind of every option that takes a number."""
    for command in COMMANDS:
        hints = get_type_hints(command, include_extras=True)
        for name, hint in hints.items():
            kinds = set(get_args(get_args(hint)[0]) or get_args(hint)[:1]) if get_args(hint) else ()
            kind = next((each for each in (float, int) if each in kinds), None)
            if kind is not None or (name in TEXTS_OF_NUMBERS and str in kinds):
                yield command.__name__, "--" + name.replace("_", "-"), (kind or int).__name__


def written() -> list[tuple[str, str, bool]]:
    """Return command, option and whether it is a folder, of every option that is written to."""
    return [
        (command.__name__, "--" + name.replace("_", "-"), bool(mark.names))
        for command in COMMANDS
        for name, mark in outputs_of(command).items()
    ]


@pytest.fixture(scope="module")
def made(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give the inputs by name."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for name in ("data", "val"):
        image = rng.standard_normal((8, 3, 12, 12)).astype(np.float32)
        np.savez(folder / f"{name}.npz", image=image, labels=rng.integers(0, 4, 8))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    import onnx_lowrank

    result = onnx_lowrank.compress(classifier, plan=["conv2=channel:R=8"], verification=False)
    found["net.onnx"] = classifier.read_bytes()
    found["small.onnx"] = result.model.SerializeToString()
    found["plan.json"] = b'{"version": 1, "layers": [{"name": "conv2", "scheme": "channel:R=8"}]}'
    found["names.txt"] = b"a\nb\nc\nd\n"
    return found


@pytest.fixture
def place(
    made: dict[str, bytes], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Give a folder with all inputs, and go there."""
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(b"an image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_LOWRANK_CACHE", str(tmp_path / "cache"))
    if "run.json" not in made:
        made["run.json"] = cli("inspect", "net.onnx", "--json").out.encode()
    (tmp_path / "run.json").write_bytes(made["run.json"])
    return tmp_path


def state(folder: Path) -> dict[str, str]:
    """Return every entry of a folder with its content, or what it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path)] = oct(path.stat().st_mode)
    return {name: what for name, what in found.items() if "/cache" not in name}


def call(cli: Cli, command: str, *options: object) -> Any:
    if command in NEEDS and importlib.util.find_spec(NEEDS[command]) is None:
        pytest.skip(f"{NEEDS[command]} is not installed")
    return cli(command, *CALLS[command], *options, "--json")


def refused(outcome: Any) -> None:
    TRIED["refused in one line"] += 1
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert len(outcome.err) < 1000
    assert "Traceback" not in outcome.err


def test_every_command_is_called_here() -> None:
    assert set(CALLS) == {command.__name__ for command in COMMANDS}
    named = {
        name
        for command in COMMANDS
        for name, hint in get_type_hints(command, include_extras=True).items()
        for mark in getattr(hint, "__metadata__", ())
        if getattr(mark, "metavar", "") in ("SOURCE", "MODULE:CALLABLE")
    }
    assert named <= set(SOURCES)
    assert {"data", "calibrate", "val", "labels", "score"} <= named


@pytest.mark.parametrize(("command", "option", "kind"), list(numeric()))
def test_a_number_out_of_any_range_is_refused_or_means_something(
    cli: Cli, place: Path, command: str, option: str, kind: str
) -> None:
    before = state(place)
    for value in NUMBERS:
        if value in ("0", "-1", "-0.5") and option in ("--seed", "--min-sqnr", "--jobs"):
            continue  # in their range: dB of any sign, seed 0, all cores
        if value == "0" and option in ("--min-top1", "--max-drop"):
            continue
        outcome = call(cli, command, f"{option}={value}")
        refused(outcome)
        assert state(place) == before, (option, value)


@pytest.mark.parametrize(
    ("command", "options", "codes"),
    [
        ("verify", ("--min-sqnr", "-1"), {0, 1}),
        ("verify", ("--min-sqnr", "-300"), {0}),
        ("verify", ("--min-sqnr", "301"), {2}),
        ("verify", ("--min-top1", "0"), {0}),
        ("verify", ("--min-top1", "1"), {0, 1}),
        ("verify", ("--min-top1", "5"), {2}),
        ("verify", ("--max-drop", "0"), {0, 1}),
        ("verify", ("--max-drop", "100"), {0}),
        ("verify", ("--max-drop", "100.5"), {2}),
        ("verify", ("--seed", "0"), {0, 1}),
        ("verify", ("--seed", str(2**32)), {2}),
        ("compress", ("--macs", "0.5"), {2}),  # beside a plan
    ],
)
def test_the_ends_of_ranges(
    cli: Cli, place: Path, command: str, options: tuple[str, ...], codes: set[int]
) -> None:
    outcome = call(cli, command, *options)
    assert outcome.code in codes, outcome
    if outcome.code == 2:
        refused(outcome)
    else:
        TRIED["carried out"] += 1


@pytest.mark.parametrize(("command", "option", "folder"), written())
def test_no_output_is_an_input(
    cli: Cli, place: Path, command: str, option: str, folder: bool
) -> None:
    extra: dict[str, tuple[str, ...]] = {
        "compress": ("--labels", "labels", "--preprocess", "none"),
        "sweep": ("--calibrate", "val.npz"),
    }
    read = {str(each) for each in CALLS[command]} & set(FILES)
    if option == "--save-latency":
        read = {"net.onnx"}
    before = state(place)
    for name in sorted(read):
        for given in (name, f"./{name}", f"images/../{name}", str(place / name)):
            outcome = call(cli, command, *extra.get(command, ()), f"{option}={given}")
            refused(outcome)
            assert name in outcome.err
            assert state(place) == before, given
        if not folder:
            for link in ("soft", "hard"):
                other = place / f"{link}.onnx"
                if link == "soft":
                    other.symlink_to(name)
                else:
                    os.link(place / name, other)
                linked = state(place)
                refused(call(cli, command, *extra.get(command, ()), f"{option}={other}"))
                assert state(place) == linked
                other.unlink()


@pytest.mark.parametrize(("command", "option", "folder"), written())
def test_what_is_no_regular_file_is_refused(
    cli: Cli, place: Path, command: str, option: str, folder: bool
) -> None:
    os.mkfifo(place / "pipe")
    (place / "to_device").symlink_to("/dev/full")
    (place / "circle").symlink_to("circle")
    (place / "to_stdout").symlink_to("/dev/stdout")
    before = state(place)
    bad = ["pipe", "to_device", "circle", "to_stdout", "/dev/full", "/dev/null", "/dev/stdout"]
    bad += ["/dev/fd/1", "/proc/self/fd/1", "net.onnx/x", "a" * 300]
    bad += [] if folder else ["images", ".", "..", "none/x", "/"]
    for path in bad:
        outcome = call(cli, command, f"{option}={path}")
        refused(outcome)
        assert state(place) == before, path
        assert Path("/dev/stdout").is_symlink()


@pytest.mark.parametrize("command", sorted({command for command, *_ in written()}))
def test_two_outputs_are_two(cli: Cli, place: Path, command: str) -> None:
    names = [option for each, option, folder in written() if each == command and not folder]
    folders = [option for each, option, folder in written() if each == command and folder]
    if len(names) + len(folders) < 2:
        return
    first, second = (names + folders)[:2]
    before = state(place)
    (place / "existing").write_text("kept")
    (place / "link").symlink_to("existing")
    kept = state(place)
    pairs = [("same", "same"), ("same", "./same"), ("existing", "link"), ("link", "existing")]
    if folders:
        pairs = [("made", "made"), ("same.png", "."), ("made.npz", ".")]
        pairs = [p for p in pairs if p[1] != "." or p[0].endswith("npz") == (command == "cascade")]
    for one, other in pairs:
        refused(call(cli, command, f"{first}={one}", f"{second}={other}"))
        assert state(place) == kept
    assert set(before) <= set(kept)


def test_force_allows_the_model_and_nothing_else(cli: Cli, place: Path) -> None:
    before = state(place)
    plan = ("compress", "net.onnx", "--plan", "plan.json", *DATA, "--force", "--keep-anyway")
    for other in ("plan.json", "data.npz"):
        refused(cli(*plan, "-o", other))
        refused(cli(*plan, "-o", "new.onnx", "--save-plan", other))
    refused(cli(*plan, "-o", "new.onnx", "--save-plan", "net.onnx"))
    refused(cli(*plan, "-o", "net.onnx", "--save-plan", "net.onnx"))
    refused(cli("correct", "net.onnx", "small.onnx", *DATA, "-o", "net.onnx", "--force"))
    assert state(place) == before
    assert cli(*plan, "-o", "net.onnx").code in (0, 1)
    changed = state(place)
    assert {name for name in before if before[name] != changed[name]} == {str(place / "net.onnx")}


def test_an_image_of_the_data_is_not_overwritten(cli: Cli, place: Path) -> None:
    os.link(place / "images" / "one.png", place / "linked.onnx")
    before = state(place)
    for output in ("images/one.png", "linked.onnx"):
        refused(cli("compress", "net.onnx", *LAYERS, "--data", "images", "-o", output))
    refused(cli("sweep", "net.onnx", "--scheme", "svd:R=1", "--data", "images", "-o", "images/new"))
    refused(cli("report", "run.json", "-o", "run.json"))
    assert state(place) == before


def test_the_input_of_a_folder_that_is_written_is_not_overwritten(cli: Cli, place: Path) -> None:
    (place / "work").mkdir()
    (place / "work" / "net.onnx").write_bytes((place / "net.onnx").read_bytes())
    (place / "sweep.npz").write_bytes((place / "data.npz").read_bytes())
    before = state(place)
    scheme = ("--layer", "fc", "--scheme", "svd:R=1")
    refused(cli("sweep", "work/net.onnx", *scheme, *DATA, "-o", "."))
    refused(cli("sweep", "net.onnx", *scheme, "--data", "sweep.npz", "-o", "."))
    os.mkfifo(place / "points.jsonl")
    refused(cli("sweep", "net.onnx", *scheme, *DATA, "-o", "."))
    os.remove(place / "points.jsonl")
    assert state(place) == before


def test_a_link_is_written_through(cli: Cli, place: Path) -> None:
    (place / "there").mkdir()
    (place / "there" / "old.onnx").write_text("old")
    (place / "link.onnx").symlink_to("there/old.onnx")
    (place / "later.json").symlink_to("there/later.json")
    outcome = call(cli, "compress", "-o", "link.onnx", "--save-plan", "later.json", "--keep-anyway")
    assert outcome.code in (0, 1), outcome
    assert (place / "link.onnx").is_symlink()
    assert (place / "there" / "old.onnx").read_bytes()[:3] != b"old"
    assert (place / "later.json").is_symlink()
    assert (place / "there" / "later.json").read_text().startswith("{")


def test_a_budget_without_data_is_refused(cli: Cli, place: Path) -> None:
    before = state(place)
    for bound in ("--max-drop", "--min-sqnr", "--min-speedup", "--macs", "--params", "--size-mb"):
        outcome = cli("compress", "net.onnx", "-o", "new.onnx", bound, 1)
        refused(outcome)
        assert "needs samples; give --data, or a plan" in outcome.err
    assert state(place) == before


EXITS = """
import sys
def leave(*_):
    sys.exit(0)
class Odd(BaseException):
    pass
def odd(*_):
    raise Odd("neither")
def late(*_):
    import numpy as np
    yield {"image": np.zeros((2, 3, 12, 12), np.float32)}
    sys.exit()
"""


@pytest.mark.parametrize("function", ["leave", "odd", "late", "module"])
@pytest.mark.parametrize("option", ["--score", "--data", "--calibrate"])
def test_a_callable_that_ends_the_process_is_an_error(
    cli: Cli, place: Path, function: str, option: str
) -> None:
    name = f"exits_{function}_{option.strip('-')}"
    text = "import sys\nsys.exit(0)\n" if function == "module" else EXITS
    (place / f"{name}.py").write_text(text)
    given = f"{name}:{function}"
    if option == "--score":
        if function == "late":
            return  # a generator is no number, which is said
        outcome = cli("verify", "net.onnx", "small.onnx", *DATA, "--score", given)
    elif option == "--data":
        outcome = cli("verify", "net.onnx", "small.onnx", "--data", given)
    else:
        outcome = cli(
            "compress", "net.onnx", *LAYERS, "-o", "new.onnx", "--calibrate", given, *DATA
        )
    refused(outcome)
    assert "SystemExit" in outcome.err or "Odd" in outcome.err
    assert not (place / "new.onnx").exists()


def test_numbers_in_texts_are_held_to_their_ranges_too(cli: Cli, place: Path) -> None:
    before = state(place)
    for value in (*NOT_FINITE, "-1", "0", "9" * 5000, "nan%", "inf%", "-5%", "101%", "1e999%"):
        for text in (f"conv2=channel:R={value}", f"conv2=mono:C={value}"):
            refused(cli("cost", "net.onnx", "--layer", text))
        if "%" not in value:
            for text in (f"conv2=channel:macs={value}", f"conv2=channel:energy={value}"):
                refused(cli("cost", "net.onnx", "--layer", text))
            refused(cli("verify", *CALLS["verify"], f"--input-shape=image={value},3,12,12"))
    assert state(place) == before


def test_enough_is_tried(record_property: Callable[[str, object], None]) -> None:
    numbers, places = list(numeric()), written()
    assert len(numbers) * len(NUMBERS) + len(places) * 16 >= 500
    assert len([option for _, option, kind in numbers if kind == "float"]) >= 10
    # What the tests above did, as far as they ran in this process.
    tried = sum(TRIED.values())
    record_property("trust", {"options": {"tried": tried, **TRIED}})
    print(f"options: {tried} tried, {dict(TRIED)}")
