"""Who may import whom, read from the source; the table is the rule."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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
    "metrics": BASE,
    "schemes": BASE | {"metrics"},
    "planning": NUMERICS,
    "graph": BASE,
    "rewriting": NUMERICS | {"graph", "planning"},
    "runtime": BASE | {"graph"},
    "documents": BASE | {"runtime"},
    "data": BASE | {"runtime"},
    "measure": BASE | {"graph", "runtime", "data"},
    "calibrate": BASE | {"metrics", "graph", "runtime", "data"},
    "finetune": NUMERICS | {"calibrate", "graph", "runtime", "data", "measure"},
    "fit_model": NUMERICS
    | {"calibrate", "data", "finetune", "graph", "rewriting", "planning", "runtime"},
    "sweeping": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "measure", "calibrate"}
    | {"documents", "fit_model", "processes"},
    "search": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "calibrate"}
    | {"fit_model", "processes", "measure"},
    "to_budget": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "measure", "results"}
    | {"measure", "search"},
    "results": NUMERICS | {"planning", "graph", "rewriting", "measure"},
    "spectra": BASE | {"graph"},
    "report": NUMERICS
    | {"planning", "results", "runtime", "measure"}
    | {"sweeping", "graph", "search", "to_budget", "spectra", "documents"},
    "api": NUMERICS
    | {"planning", "graph", "rewriting", "runtime", "data", "measure", "results"}
    | {"calibrate", "fit_model", "measure"},
    "cascade": BASE | {"api", "calibrate", "data", "finetune", "graph", "planning", "runtime"},
    "cli": {"__init__", "api", "measure", "bounds", "cascade", "errors", "files", "finetune"}
    | {"measure", "report", "text", "types"}
    | {"spectra", "sweeping"}
    | {"documents", "planning", "to_budget"},
    "__main__": {"cli"},
    "__init__": {"api", "measure", "planning", "runtime"}
    | {"sweeping", "to_budget"},
}

# Third-party package -> the only modules that may import it.
EXCLUSIVE = {
    "onnx_graphsurgeon": {"graph"},
    "onnxruntime": {"runtime"},
    "openvino": {"runtime"},
    "torch": {"finetune"},
    "typer": {"cli"},
    "onnx": {
        "api",
        "calibrate",
        "cascade",
        "finetune",
        "fit_model",
        "graph",
        "rewriting",
        "results",
        "runtime",
        "search",
        "spectra",
        "to_budget",
        "types",
        "sweeping",
        "measure",
        "measure",
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
