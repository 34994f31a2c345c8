"""Who may import whom, read from the source; the table is the rule."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnx_lowrank"

# Module or package -> what it may import of this package besides itself.
BASE = {"errors", "conv", "cache", "storage", "bounds", "files", "json_input", "text", "types"}
BASE |= {"layer_errors", "registry"}
NUMERICS = BASE | {"metrics", "schemes"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "conv": {"errors"},
    "cache": {"errors", "files", "json_input"},
    "storage": set(),
    "registry": set(),
    "bounds": {"errors"},
    "files": {"errors"},
    "text": set(),
    "types": set(),
    "layer_errors": {"errors"},
    "json_input": {"errors"},
    "processes": set(),
    "step_seconds": set(),
    "metrics": BASE,
    "schemes": BASE | {"metrics"},
    "planning": NUMERICS,
    "graph": BASE,
    "rewriting": NUMERICS | {"graph", "planning"},
    "runtime": BASE | {"graph"},
    "documents": BASE | {"runtime"},
    "data": BASE | {"runtime"},
    "spectra": BASE | {"graph"},
    "measure": BASE | {"graph", "runtime", "data"},
    "fitting": NUMERICS | {"planning", "graph", "rewriting", "runtime", "data", "processes"},
    "training": NUMERICS | {"fitting", "graph", "runtime", "data", "measure"},
    "search": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "measure", "fitting"}
    | {"processes", "step_seconds"},
    "estimation": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "measure", "fitting", "search"},
    "pipelines": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "measure", "fitting", "search"}
    | {"training", "documents", "processes", "step_seconds", "estimation"},
    "report": NUMERICS
    | {"planning", "runtime", "measure", "graph", "search", "spectra", "documents", "pipelines"}
    | {"estimation"},
    "cli": {"__init__", "bounds", "errors", "files", "text", "types", "documents", "planning"}
    | {"measure", "runtime", "spectra", "training", "search", "pipelines", "report"},
    "__main__": {"cli"},
    "__init__": {"data", "measure", "pipelines", "planning", "runtime", "search"},
}

# Third-party package -> the only modules that may import it.
EXCLUSIVE = {
    "onnx_graphsurgeon": {"graph"},
    "onnxruntime": {"runtime"},
    "openvino": {"runtime"},
    "torch": {"training"},
    "typer": {"cli"},
    "onnx": {
        "estimation",
        "fitting",
        "graph",
        "measure",
        "pipelines",
        "rewriting",
        "runtime",
        "search",
        "spectra",
        "training",
        "types",
    },
}


def _module(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Dotted names of everything imported anywhere in a file, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    module = _module(path)
    assert module in ALLOWED, f"{module} has no row in the table"
    for name in _imports(path):
        top, *rest = name.split(".")
        if top == "onnx_lowrank" and rest:
            used = (
                rest[0]
                if (PACKAGE / rest[0]).is_dir() or (PACKAGE / f"{rest[0]}.py").exists()
                else "__init__"
            )
            assert used == module or used in ALLOWED[module], f"{module} imports {name}"
        elif top in EXCLUSIVE:
            assert module in EXCLUSIVE[top], f"{module} imports {name}"


def test_a_bare_import_is_cheap() -> None:
    code = (
        "import sys, onnx_lowrank; "
        "heavy = 'onnx onnxruntime onnx_graphsurgeon scipy sklearn torch'.split(); "
        "print([m for m in heavy "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_help_is_cheap() -> None:
    code = (
        "import sys; from onnx_lowrank.cli import commands; "
        "heavy = 'numpy scipy onnx onnxruntime sklearn torch rich.table'.split(); "
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# Who may print or take the terminal library: the gate, the last line of a failure, the bar of
# progress, and the child process that answers with JSON.
PRINTERS = {"report/console.py", "cli/__init__.py", "cli/commands.py", "runtime/memory.py"}
RICH = {
    "report/console.py": {"rich.console", "rich.table", "rich.text"},
    "cli/output.py": {"rich.progress"},
}
PRINTING = re.compile(r"print|echo|secho|print_exc|Console|sys\.(__)?std(out|err)(__)?\.write")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_gate_prints(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and PRINTING.fullmatch(ast.unparse(node.func)):
            assert place in PRINTERS, f"line {node.lineno} prints: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
            # The class of a console is a type in the signatures of those who are given one.
            a_type = {alias.name for alias in node.names} == {"Console"}
            assert a_type or node.module in RICH.get(place, set()), f"line {node.lineno}"
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("rich") for alias in node.names)


def test_no_package_imports_one_that_imports_it() -> None:
    waiting = dict(ALLOWED)
    while waiting:
        free = [name for name, uses in waiting.items() if not uses & waiting.keys()]
        assert free, f"a circle among {sorted(waiting)}"
        for name in free:
            del waiting[name]


def test_no_file_imports_one_that_imports_it() -> None:
    paths = {}
    for path in FILES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        paths[".".join(part for part in parts if part != "__init__")] = path
    uses: dict[str, set[str]] = {}
    for name, path in paths.items():
        found = set()
        for each in _imports(path):
            while each and each not in paths:  # a name in a file, not a file
                each = each.rpartition(".")[0]
            found.add(each)
        uses[name] = found - {name, "", "onnx_lowrank"}
    while uses:
        free = [name for name, found in uses.items() if not found & uses.keys()]
        assert free, f"circles among {sorted(uses)}"
        for name in free:
            del uses[name]


# What users call and type takes each argument by its name; what is below takes objects.
FLAT = {"pipelines", "cli"}
MOST_PARAMETERS = 8


def _functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.arguments]]:
    """Yield the functions of a file and their parameters, those of classes and functions too."""
    for child in ast.iter_child_nodes(node):
        name = inside
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{child.name}".lstrip(".")
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, child.args
        yield from _functions(child, name)


def _parameters(arguments: ast.arguments) -> list[str]:
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    given += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    return [each.arg for each in given if each.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_function_takes_more_than_a_caller_can_keep_apart(path: Path) -> None:
    if _module(path) in FLAT:
        return
    for name, arguments in _functions(ast.parse(path.read_text())):
        found = _parameters(arguments)
        assert len(found) <= MOST_PARAMETERS, f"{name} takes {found}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350
