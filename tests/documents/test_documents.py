"""Kinds and versions, their schemas, and that these refuse what they do not describe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnx_lowrank import documents

jsonschema = pytest.importorskip("jsonschema")
FOLDER = Path(documents.__file__).parent
FILES = {path.name.partition(".")[0]: path for path in FOLDER.glob("*.schema.json")}
REPORT = {"output": "page.html", "bytes": 3, "sections": [], "figures": None}


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every description of an object in a schema, however deep."""
    for child in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(child, dict | list):
            yield from objects(child)
    if isinstance(schema, dict) and "properties" in schema and "type" in schema:
        yield schema


def read(name: str) -> Any:
    """Read a schema; of two keys of one name, JSON would silently keep the last."""

    def closed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        assert len(found) == len(pairs), f"{name}: {[key for key, _ in pairs]}"
        return found

    return json.loads(FILES[name].read_text(encoding="utf-8"), object_pairs_hook=closed)


def test_every_kind_has_a_schema_of_its_version() -> None:
    assert set(FILES) == {*documents.VERSIONS, "common", "plan"}
    for kind, version in documents.VERSIONS.items():
        schema = read(kind)
        assert schema["properties"]["kind"] == {"const": kind}
        assert schema["properties"]["version"] == {"const": version}


@pytest.mark.parametrize("name", FILES)
def test_schemas_are_valid_and_closed(name: str) -> None:
    schema = read(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == FILES[name].name
    for each in objects(schema):
        assert each["additionalProperties"] is False
        assert set(each["required"]) <= set(each["properties"])


def test_a_document_is_its_content_with_kind_and_version_first() -> None:
    made = documents.document("report", {"version": 7, **REPORT})
    assert list(made)[:2] == ["kind", "version"]
    assert made == {"kind": "report", "version": 1, **REPORT}
    with pytest.raises(KeyError):
        documents.document("reports", REPORT)


def test_where_it_was_measured_is_told() -> None:
    made = documents.measured("verify", {"passed": True}, provider="cpu", threads=2)
    assert (made["provider"], made["threads"]) == ("cpu", 2)
    assert made["machine"]["cores"] >= 1
    assert "onnx" in made["machine"]["versions"]


@pytest.mark.parametrize(
    "fault", [{"more": 1}, {"bytes": -1}, {"sections": [1]}, {"version": 2}, {"output": None}]
)
def test_a_schema_refuses_another_content(fault: dict[str, Any]) -> None:
    schema = read("report")
    validator = jsonschema.Draft202012Validator(schema)
    made = documents.document("report", REPORT)
    assert validator.is_valid(made)
    assert not validator.is_valid({**made, **fault})
    for name in made:
        assert not validator.is_valid({key: value for key, value in made.items() if key != name})
