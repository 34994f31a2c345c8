"""The tables of ops and instruction sets: what a line promises is there, for every line."""

from __future__ import annotations

import bench
import numpy as np
import pytest
from building import SOURCE
from cases import activation, window
from ops import MODULES
from tables import ISAS, OPS, VECTOR_ISAS, Op, isas_here
from test_kernels import agree, layer

from onnx_lowrank.rewriting.lowering import functions


def test_all_of_the_tables_is_read() -> None:
    for table, found in (("ops", OPS), ("isas", VECTOR_ISAS)):
        text = (SOURCE / "src" / f"{table}.inc").read_text()
        macro = f"\nONNX_LOWRANK_{table[:-1].upper()}("
        assert text.count(macro) == len(found) > 1
    assert ISAS == ("scalar", "avx2", "avx512")


def test_ops_are_those_of_the_package() -> None:
    bodies = functions.functions(15)
    assert set(OPS) == set(functions.OPS) == set(bodies)
    for name, op in OPS.items():
        assert list(op.inputs) == list(bodies[name].input)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_an_op_has_its_files(op: Op) -> None:
    for folder, suffix in (
        ("src/ops", "cc"),
        ("src/cuda", "cu"),
        ("tests/kernels", "cc"),
        ("tests/nodes", "cc"),
        ("bench/ops", "py"),
    ):
        assert (SOURCE / folder / f"{op.file}.{suffix}").is_file()


def test_no_file_is_left_out_of_the_tables() -> None:
    stems = {op.file for op in OPS.values()}
    shared = {"low_rank", "cuda_ops", "plan", "__init__", "reference"}
    for pattern in ("src/ops/*.cc", "src/cuda/*.cu", "tests/kernels/*.cc", "tests/nodes/*.cc"):
        assert {path.stem for path in SOURCE.glob(pattern)} - shared == stems
    found = {path.stem for path in (SOURCE / "src" / "simd").glob("*.cc")}
    assert found == {isa.name for isa in VECTOR_ISAS}


@pytest.mark.parametrize("isa", isas_here())
@pytest.mark.parametrize("op", OPS)
def test_every_op_agrees_with_its_body_under_every_instruction_set(
    library: str, monkeypatch: pytest.MonkeyPatch, isa: str, op: str
) -> None:
    monkeypatch.setenv("ONNX_LOWRANK_ISA", isa)
    rng = np.random.default_rng(20)
    x = rng.standard_normal((2, 6, 11, 19)).astype(np.float32)
    attributes = {**window((3, 3), 1, 1), **activation()} if op in functions.ACTIVATING else {}
    layers = MODULES[op].layers(rng, (3, 3))
    assert len(layers) > 1
    for parts in layers:
        assert parts[0] == op
        assert parts[1] == ["X", *parts[2]] == list(OPS[op].inputs)
        whole = {name for name, value in parts[2].items() if value.dtype == np.int64}
        assert whole == OPS[op].integers
        agree(layer(parts, attributes, x.shape), library, x)


def test_points_have_names_of_their_own() -> None:
    names = [bench.name(point) for point in bench.points()]
    assert len(names) == len(set(names)) == 25


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_timed(op: str) -> None:
    module = MODULES[op]
    points = module.points()
    assert points
    parts, _ = module.timed(np.random.default_rng(0), points[0])
    assert parts[0] == op


def test_only_the_table_and_an_ops_own_files_name_it() -> None:
    allowed = {"src/ops.inc", "src/ops", "src/cuda", "tests/kernels", "tests/nodes", "bench/ops"}
    for path in SOURCE.rglob("*"):
        place = path.relative_to(SOURCE)
        if path.suffix not in {".cc", ".h", ".cu", ".cuh", ".inl", ".inc", ".txt"}:
            continue
        if {str(place), str(place.parent)} & allowed:
            continue
        text = path.read_text()
        assert not [name for name in OPS if f'"{name}"' in text], place
