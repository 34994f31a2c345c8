"""The one gate for JSON: bounded, parsed and checked against its schema before anything uses it.

Schemas are the files ``documents/<name>.schema.json``. Python's own reader takes NaN, keys that are
there twice, and nests and numbers that end it in an error of another kind; here all are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from onnx_lowrank.errors import OnnxLowRankError

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
MAX_NUMBER = 100  # characters; our own figures have at most 25

_SCHEMAS = Path(__file__).parent / "documents"
_SHOWN = 200  # characters of what a message quotes
_TOKENS = re.compile(r'["\\\[\]{}]')


class JsonError(ValueError):
    """What is wrong with a document, and where in it."""


def parse_json(content: bytes | str) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Raises
    ------
    JsonError
        It is not JSON, has a key twice or a number that is not finite, or is larger, nested deeper
        or has longer numbers than `MAX_BYTES`, `MAX_DEPTH` and `MAX_NUMBER`.
    """
    if len(content) > MAX_BYTES:
        raise JsonError(f"it is larger than {MAX_BYTES >> 20} MiB")
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise JsonError(f"it is not UTF-8 at byte {error.start}") from None
    if not content.strip():
        raise JsonError("it is empty")
    _check_depth(content)
    try:
        return json.loads(
            content,
            object_pairs_hook=_object,
            parse_int=_number(int),
            parse_float=_number(float),
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise JsonError(f"it is not JSON: {error}") from None


def check_json(data: Any, schema: str) -> None:
    """Raise JsonError where data do not fit a schema; the message begins with the place.

    Parameters
    ----------
    data : object
        What `parse_json` gave.
    schema : str
        Name of its file, or with ``#`` a place in it, such as ``"sweep#/$defs/point"``.
    """
    _check(data, schema, partial=False)


def check_partial(data: Any, schema: str) -> None:
    """Do as `check_json`, but let through what is missing, null, or not known."""
    _check(data, schema, partial=True)


def read_json(
    path: Path, schema: str, *, what: str, remedy: str, error: type[OnnxLowRankError]
) -> Any:
    """Read a file of JSON that fits a schema.

    Parameters
    ----------
    path : path
        The file.
    schema : str
        As of `check_json`.
    what : str
        What the file should be, for the message: ``"the plan"``.
    remedy : str
        What to do about another one.
    error : type
        What is raised.
    """
    try:
        data = parse_json(read_bytes(path))
        check_json(data, schema)
    except (OSError, JsonError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else wrong
        raise error(f"cannot read {what} {path}: {reason}; {remedy}") from None
    return data


def read_bytes(path: Path) -> bytes:
    """Return a file's content, or of one that is too large (or a device) the first `MAX_BYTES` + 1.

    Raises
    ------
    OSError
        It cannot be read.
    JsonError
        Its name is none.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except ValueError as wrong:  # a NUL in the name
        raise JsonError(str(wrong)) from None


@lru_cache
def load_schema(name: str) -> dict[str, Any]:
    """Return a schema by the name of its file, which may end in ``.schema.json``."""
    file = _SCHEMAS / f"{name.removesuffix('.schema.json')}.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    del schema[
        "$schema"
    ]  # by it, jsonschema would take its own class and not that of a partial one
    return schema


def resolve(schema: dict[str, Any], home: str) -> tuple[dict[str, Any], str]:
    """Follow the reference that a part of the schema file `home` may be; return part and file."""
    while "$ref" in schema:
        file, _, pointer = schema["$ref"].partition("#")
        home = file or home
        schema = load_schema(home)
        for step in pointer.strip("/").split("/") if pointer else ():
            schema = schema[step]
    return schema, home


def _check(data: Any, schema: str, *, partial: bool) -> None:
    from jsonschema.exceptions import best_match

    name, _, pointer = schema.partition("#")
    file = f"{name}.schema.json"
    part, _ = resolve({"$ref": f"{file}#{pointer}"}, file)
    if isinstance(data, dict):  # what kind it is tells more than each field that another kind lacks
        for key in ("kind", "version"):
            due = part.get("properties", {}).get(key, {}).get("const")
            if due is not None and data.get(key) != due and (key in data or not partial):
                found = repr(data[key]) if key in data else "missing"
                raise JsonError(f"its {key} is {_short(found)}, not {due!r}")
    errors = _validator(f"{file}#{pointer}", partial=partial).iter_errors(data)
    first = next(errors, None)
    if first is not None:
        found = best_match([first])
        place = _place(found.absolute_path)
        raise JsonError(f"{place}: {_short(found.message)}" if place else _short(found.message))


@lru_cache
def _validator(reference: str, *, partial: bool) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    registry: Any = Registry().with_resources(
        (file.name, DRAFT202012.create_resource(load_schema(file.name)))
        for file in _SCHEMAS.glob("*.schema.json")
    )
    kind: Any = Draft202012Validator
    if partial:
        kept: dict[str, Any] = {
            key: _unless_null(kind.VALIDATORS[key]) for key in ("type", "enum", "const")
        }
        kind = extend(kind, {**kept, "required": _nothing, "additionalProperties": _known_only})
    return kind({"$ref": reference}, registry=registry)


def _unless_null(check: Callable[..., Any]) -> Callable[..., Any]:
    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return () if instance is None else check(validator, value, instance, schema)

    return checked


def _nothing(*_: Any) -> tuple[()]:
    return ()


def _known_only(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
    """Check the values of a mapping; a closed object may have more fields, of a later version.

    One without any field stays empty: it stands for nothing.
    """
    from jsonschema import Draft202012Validator

    if isinstance(value, dict) or not schema.get("properties"):
        check = Draft202012Validator.VALIDATORS["additionalProperties"]
        yield from check(validator, value, instance, schema)


def _check_depth(text: str) -> None:
    """Count the brackets outside strings, before a parser calls itself for each."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth, end, quoted = 0, 0, False
    for found in _TOKENS.finditer(text):
        token, place = found[0], found.start()
        if place < end:  # escaped
            continue
        if token == "\\":
            end = place + 2
        elif token == '"':
            quoted = not quoted
        elif not quoted:
            depth += 1 if token in "[{" else -1
            if depth > MAX_DEPTH:
                raise JsonError(f"it is nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"the key {_short(repr(twice))} is there twice")
    return found


def _number(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    def read(text: str) -> int | float:
        if len(text) > MAX_NUMBER:
            raise JsonError(f"the number {text[:20]}... has {len(text):,} characters")
        value = kind(text)
        if value in (float("inf"), float("-inf")):
            raise JsonError(f"the number {text} is beyond the range of floats")
        return value

    return read


def _constant(name: str) -> Any:
    raise JsonError(f"{name} is not JSON")


def _place(path: Any) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{_short(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def _short(text: str) -> str:
    half = _SHOWN // 2
    return text if len(text) <= _SHOWN else f"{text[:half]} ... {text[-half:]}"
