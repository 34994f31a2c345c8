"""What messages advise exists: every option that a text of the package names is one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from onnx_lowrank.cli import app

PACKAGE = Path(__file__).parents[2] / "onnx_lowrank"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def options() -> set[str]:
    command = typer.main.get_command(app)
    found = {
        option
        for each in (command, *command.commands.values())  # type: ignore[attr-defined]
        for parameter in each.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    return found | {"--help"}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a file that are no docstrings, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.lineno, node.value


def test_every_option_that_a_text_names_exists() -> None:
    known = options()
    named = [
        (option, f"{path.relative_to(PACKAGE)}:{line}")
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in texts(path)
        for option in OPTION.findall(text)
    ]
    assert len(named) > 50
    assert [each for each in named if each[0] not in known] == []


@pytest.mark.parametrize("text", ["give --data", "(--layer NAME=keep)", "'--min-sqnr'"])
def test_options_are_found_in_texts(text: str) -> None:
    assert len(OPTION.findall(text)) == 1
    assert set(OPTION.findall(text)) <= options()
