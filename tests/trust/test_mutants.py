"""Damaged models: every command refuses them in one line, or does what it says."""

from __future__ import annotations

from pathlib import Path

import corpus
import onnx
import pytest
from counts import Record, faults, scaled, summary
from isolation import each
from jobs import Job, read_model
from mutants import mutants

SEED = 7


def test_mutants(trust_record: Record, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    models = [named.model for named in corpus.torch_models((13,), dynamo=False)]
    models += [corpus.quantised(model) for model in models[:6]]
    models += [corpus.float16(model) for model in models[:4]]
    tries = [
        Job(f"mutant/{SEED}/{number}", data, number)
        for number, data in enumerate(mutants(models, scaled(1000), SEED))
    ]
    found = list(each(read_model, tries))
    trust_record("mutants of models", summary(outcome for _, outcome in found))
    assert faults(found, tmp_path) == ""
    # Most must get past the parser, or the mutants say nothing; some must be refused.
    assert sum(outcome == "verified" for _, outcome in found) > len(found) // 10
    assert sum(outcome.startswith("refused") for _, outcome in found) > len(found) // 5


def test_a_mutant_is_the_same_every_time() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> net (float[2] x) => (float[2] y) {y = Relu(x)}'
    )
    assert list(mutants([model], 50, 1)) == list(mutants([model], 50, 1))
