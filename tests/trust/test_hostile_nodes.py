"""Thousands of nodes that no exporter writes: every one runs or is refused, none ends the process.

ONNX_LOWRANK_TRUST_SCALE multiplies how many.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(TESTS / "custom_ops")]

import building  # noqa: E402
from counts import Record  # noqa: E402
from hostile_nodes import COMPARED, hostile_nodes, metadata, run_nodes  # noqa: E402
from tables import OPS, isas_here  # noqa: E402

COUNT = int(600 * float(os.environ.get("ONNX_LOWRANK_TRUST_SCALE", "1")))
ISAS = isas_here()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return building.library(tmp_path_factory)


@pytest.mark.parametrize("isa", ISAS)
def test_no_node_ends_the_process(trust_record: Record, library: str, isa: str) -> None:
    counts = run_nodes(hostile_nodes(COUNT, seed=1), library, isa)
    found = {"tried": COUNT, **{k: v for k, v in vars(counts).items() if isinstance(v, int)}}
    trust_record(f"hostile nodes, {isa}", found)
    assert not [failure for _, failure in counts.failures]
    assert counts.ran + counts.refused == COUNT
    assert counts.ran > 0.3 * COUNT
    assert counts.refused > 0.3 * COUNT
    assert counts.agreed > 0.1 * COUNT


def test_nodes_are_the_same_for_a_seed_and_of_all_kinds() -> None:
    nodes = [list(hostile_nodes(60, seed=3)) for _ in range(2)]
    assert [m.SerializeToString() for m in nodes[0]] == [m.SerializeToString() for m in nodes[1]]
    kinds = {m.graph.node[0].op_type for m in nodes[0]}
    assert kinds == set(OPS)


class TestFaultsAreSeen:
    """The counts of the runner, on libraries that do go wrong."""

    def models(self) -> list[onnx.ModelProto]:
        # The first two of seven are right; of those, two that are compared with their bodies.
        right = [m for i, m in enumerate(hostile_nodes(70, seed=6)) if i % 7 < 2]
        return [m for m in right if metadata(m, COMPARED)][:2]

    def faulty(self, folder: Path, body: str) -> str:
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        source, library = folder / "faulty.c", folder / "libfaulty.so"
        source.write_text(
            "#include <stdlib.h>\n#include <unistd.h>\n"
            f"void *RegisterCustomOps(void *options, void *api) {{ {body} return 0; }}\n"
        )
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
        return str(library)

    def test_death(self, tmp_path: Path) -> None:
        library = self.faulty(tmp_path, "abort();")
        counts = run_nodes(iter(self.models()), library, "scalar", jobs=1)
        assert (counts.signal, counts.ran, counts.refused) == (2, 0, 0)
        assert [failure for _, failure in counts.failures] == ["signal: exit code -6"] * 2

    def test_hang(self, tmp_path: Path) -> None:
        library = self.faulty(tmp_path, "sleep(60);")
        counts = run_nodes(iter(self.models()), library, "scalar", jobs=1, seconds=1.0)
        assert (counts.hang, counts.signal) == (2, 0)

    def test_wrong_result(self, library: str) -> None:
        models = self.models()
        for model in models:  # the body no longer computes what the kernel does
            last = model.functions[0].node[-1]
            last.output[0] = "half"
            model.functions[0].node.append(onnx.helper.make_node("Add", ["half", "half"], ["Y"]))
        counts = run_nodes(iter(models), library, "scalar", jobs=1)
        assert (counts.ran, counts.wrong, counts.agreed) == (2, 2, 0)
