"""Documents of runs that did not end, or of which parts are missing: completed with nothing."""

from __future__ import annotations

from typing import Any

from onnx_lowrank.json_input import load_schema, resolve

_MISSING = object()
UNNAMED = "?"
_EMPTY: dict[str, Any] = {"object": {}, "array": [], "string": UNNAMED}


def complete(data: dict[str, Any], kind: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a document in which all is there that its schema demands, and what was missing.

    A figure that is missing, or null where its schema has a figure, is None in the result; a text
    is `UNNAMED`, a list is empty, and an object has fields of these.

    Parameters
    ----------
    data : dict
        A document that `json_input.check_partial` accepts.
    kind : str
        Its kind, the name of its schema.

    Returns
    -------
    dict
        A copy with the fields of `data` and those that it lacks.
    tuple of str
        Places of what it lacks, such as ``"search.latency"``.
    """
    missing: list[str] = []
    found = _complete(data, load_schema(kind), f"{kind}.schema.json", "", missing)
    return found, tuple(missing)


def _complete(data: Any, schema: dict[str, Any], home: str, place: str, missing: list[str]) -> Any:
    schema, home = resolve(schema, home)
    if "anyOf" in schema:
        options = [resolve(option, home) for option in schema["anyOf"]]
        if data in (None, _MISSING) and any(part.get("type") == "null" for part, _ in options):
            if data is _MISSING:
                missing.append(place)
            return None
        schema, home = max(options, key=lambda option: _likeness(data, option[0]))
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if data is _MISSING or (data is None and "null" not in kinds):
        missing.append(place)
        missing = []  # what is below is missing with it
        data = None if "null" in kinds or not kinds else _EMPTY.get(kinds[0])
        if kinds == ["array"]:
            data = [_MISSING] * schema.get("minItems", 0)
    if isinstance(data, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties")
        due = [name for name in known if name in data or name in schema.get("required", ())]
        parts = {name: known[name] for name in due}
        if isinstance(more, dict):
            parts |= {name: more for name in data if name not in known}
        return data | {
            name: _complete(
                data.get(name, _MISSING), part, home, f"{place}.{name}".lstrip("."), missing
            )
            for name, part in parts.items()
        }
    if isinstance(data, list) and "items" in schema:
        return [
            _complete(each, schema["items"], home, f"{place}[{index}]", missing)
            for index, each in enumerate(data)
        ]
    return data


def _likeness(data: Any, schema: dict[str, Any]) -> int:
    """Return how many fields of an object a schema knows; one of another constant knows none."""
    if not isinstance(data, dict):
        return -len(schema.get("properties", ()))
    if schema.get("type") != "object":
        return -1000
    known = schema.get("properties", {})
    if not data:
        return -len(known)
    if any("const" in known[n] and known[n]["const"] != data[n] for n in known if n in data):
        return -1
    return sum(name in known for name in data)
