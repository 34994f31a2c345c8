"""Operators are recognised by name and domain, in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from onnx import helper

from onnx_lowrank.graph.ops import is_op, standard_op

PACKAGE = Path(__file__).parents[2] / "onnx_lowrank"

# The files that read a node's `op_type`, and what for.
READERS = {
    "graph/ops.py": "it compares names and domains",
    "estimation/work.py": "it names ops of its own domain",
    "graph/order.py": "it names nodes in messages",
    "graph/layers.py": "it names ops in the list of layers",
    "graph/places.py": "it compares calls with functions, and names nodes in reasons",
    "graph/foreign_layers.py": "it looks up ops by their domain and name",
    "graph/counterparts.py": "it looks up ops by their domain and name",
    "graph/portable_layers.py": "it looks up ops of its own domain",
    "graph/validate.py": "it resolves calls of functions, and names nodes in messages",
    "graph/repair.py": "it names nodes in messages",
    "rewriting/lowering/functions.py": "it collects the ops of its own domain",
    "rewriting/passes/fuse_activation.py": "it looks up ops of its own domain, and names nodes",
    "measure/profiling/forward.py": "it shows ops",
    "runtime/attribution.py": "onnxruntime's fused ops are in domains of its own",
    "search/single_layer.py": "it digests the structure, domains and all",
    "training/context.py": "it names nodes in messages",
    "training/correct.py": "it names nodes in messages",
}


def test_a_standard_op_has_both_spellings_of_its_domain() -> None:
    for domain in ("", "ai.onnx"):
        node = helper.make_node("Relu", ["x"], ["y"], domain=domain)
        assert is_op(node, "Relu")
        assert is_op(node, "Clip", "Relu")
        assert is_op(node)
        assert standard_op(node) == "Relu"
        assert not is_op(node, "Clip")


def test_a_name_in_another_domain_is_another_op() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="my")
    assert not is_op(node, "Relu")
    assert not is_op(node)
    assert standard_op(node) == ""
    assert is_op(node, "Relu", domain="my")
    assert is_op(node, domain="my")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_no_other_file_looks_at_op_type(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    lines = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "op_type"
        and isinstance(node.ctx, ast.Load)
    ]
    if name not in READERS:
        assert not lines, f"{name}:{lines}: use graph.ops.is_op or standard_op"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_only_one_file_compares_op_type(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    if name == "graph/ops.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = [s for s in sides if isinstance(s, ast.Attribute) and s.attr == "op_type"]
            assert not found, f"{name}:{node.lineno}: use graph.ops.is_op or standard_op"
