"""Models by others and random ones: compressed without loss and equal, or refused with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import corpus
import pytest
from counts import Record, faults, scaled, summary
from hypothesis import HealthCheck, given, settings
from isolation import each
from jobs import Job, compress_model, compress_twice
from random_graphs import networks

SCRIPT_OPSETS = (9, 11, 13, 15, 17, 18, 20)
EXPORT_OPSETS = (18, 20, 21, 22, 23)


def jobs(models: Iterable[corpus.Named], *options: str) -> list[Job]:
    """Return a job for each model that is small enough to serialise."""
    return [
        Job(named.name, named.model.SerializeToString(), number, options)
        for number, named in enumerate(models)
        if named.model.ByteSize() < 2**30
    ]


def check(name: str, tries: list[Job], record: Record, tmp_path: Path, *, verified: int) -> None:
    """Try models; none may be wrong, and at least `verified` must have been compressed."""
    found = list(each(compress_model, tries))
    record(name, summary(outcome for _, outcome in found))
    assert faults(found, tmp_path) == ""
    assert sum(outcome == "verified" for _, outcome in found) >= verified
    # Full ranks lose nothing; of tensors without elements nothing can be measured.
    assert [j.name for j, outcome in found if outcome == "failed" and "/empty/" not in j.name] == []


def test_models_of_single_ops(trust_record: Record, tmp_path: Path) -> None:
    check(
        "onnx's models of single ops",
        jobs(corpus.node_models()),
        trust_record,
        tmp_path,
        verified=15,
    )


def test_models_in_packages(trust_record: Record, tmp_path: Path) -> None:
    check("models in packages", jobs(corpus.wheel_models()), trust_record, tmp_path, verified=20)


@pytest.mark.parametrize("lowering", ["standard", "portable"])
def test_exports_of_torchscript(lowering: str, trust_record: Record, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    opsets = SCRIPT_OPSETS[: scaled(2)] if scaled(1) == 1 else SCRIPT_OPSETS
    models = list(corpus.torch_models(opsets, dynamo=False))
    halves = [corpus.Named(f"{n}/float16", corpus.float16(m)) for n, m in models]
    stored = [corpus.Named(f"{n}/int8", corpus.quantised(m)) for n, m in models if "13" in n]
    tries = jobs([*models, *halves, *stored], "--lowering", lowering)
    check(f"torch's exports ({lowering})", tries, trust_record, tmp_path, verified=25)


def test_compressed_models_are_compressed_again(trust_record: Record, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    models = list(corpus.torch_models((13,), dynamo=False))
    tries = [*jobs(models, "--lowering", "standard"), *jobs(models, "--lowering", "portable")]
    found = list(each(compress_twice, tries))
    trust_record("compressed models, compressed again", summary(outcome for _, outcome in found))
    assert faults(found, tmp_path) == ""
    assert sum(outcome == "verified" for _, outcome in found) >= 15


def test_exports_of_torch_export(trust_record: Record, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    opsets = EXPORT_OPSETS if scaled(1) > 1 else EXPORT_OPSETS[:1]
    models = corpus.torch_models(opsets, dynamo=True)
    check("exports of torch.export", jobs(models), trust_record, tmp_path, verified=15)


@pytest.mark.parametrize("lowering", ["standard", "portable"])
def test_random_networks(lowering: str, trust_record: Record, tmp_path: Path) -> None:
    drawn: list[Job] = []

    @settings(
        max_examples=scaled(120),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(networks())
    def draw(network: tuple[object, dict[str, str]]) -> None:
        model, plan = network
        data = model.SerializeToString()  # type: ignore[attr-defined]
        number = len(drawn)
        sizes = model.graph.input[0].type.tensor_type.shape.dim  # type: ignore[attr-defined]
        empty = any(d.HasField("dim_value") and d.dim_value == 0 for d in sizes)
        name = f"random/{'empty/' if empty else ''}{number}"
        drawn.append(Job(name, data, number, ("--lowering", lowering), plan))

    draw()
    unique = list({job.data: job for job in drawn}.values())
    check(
        f"random networks ({lowering})", unique, trust_record, tmp_path, verified=len(unique) // 2
    )
