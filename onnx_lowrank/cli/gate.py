"""One gate for the files of all commands: what is written is no input and no other output."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from onnx_lowrank.files import Input, Output

P = ParamSpec("P")
T = TypeVar("T")

# Options that name data, files or callables by a text.
SOURCES = ("data", "calibrate", "val", "labels", "score", "preprocess")


@dataclass(frozen=True)
class Writes:
    """Marks an option, by `Annotated`, as a place that the command writes to.

    Attributes
    ----------
    names : tuple of str
        Of a folder: patterns of the names in it that are written; none for a file.
    over : str or None
        The parameter of the input that ``--force`` allows to overwrite.
    """

    names: tuple[str, ...] = ()
    over: str | None = None


def outputs_of(command: Callable[..., Any]) -> dict[str, Writes]:
    """Return what each parameter of a command that is written to is marked with."""
    hints = get_type_hints(command, include_extras=True)
    return {
        name: mark
        for name, hint in hints.items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Writes)
    }


def guarded(command: Callable[P, T]) -> Callable[P, T]:
    """Return the command with its files checked before any work."""
    marks = outputs_of(command)
    if not marks:
        return command

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        from onnx_lowrank.pipelines.outputs import check_files

        outputs = []
        for name, mark in marks.items():
            path, over = options[name], options[mark.over] if mark.over is not None else None
            if path is not None:
                assert isinstance(path, Path)
                assert over is None or isinstance(over, Path)
                force = bool(options.get("force"))
                outputs.append(Output(_option(name), path, mark.names, over, force))
        own = {mark.over for mark in marks.values()}
        check_files(outputs, list(_inputs(options, marks, own)))
        return command(*arguments, **options)

    return run


def _inputs(
    options: Mapping[str, object], marks: Mapping[str, Writes], own: set[str | None]
) -> Iterator[Input]:
    for name, value in options.items():
        what = "is the input itself" if name in own else f"is read, as {_option(name)}"
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Path) and name not in marks:
                yield Input(what, each)
            elif isinstance(each, str) and name in SOURCES:
                for path in _named(each):
                    yield Input(what, path)


def _named(source: str) -> Iterator[Path]:
    """Yield the files that a source of data or a callable may be: those of a module too."""
    if "\0" in source:
        return
    yield Path(source)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", source):
        module = Path(*source.partition(":")[0].split("."))
        yield from (module.with_suffix(".py"), module / "__init__.py")


def _option(name: str) -> str:
    """Return what a message calls a parameter."""
    positional = ("model", "models", "original", "compressed", "runs")
    return name if name in positional else "--" + name.replace("_", "-")
