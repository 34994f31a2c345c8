"""The JSON that commands write: each document names its kind and the version of its schema.

The schema of a kind is the file ``<kind>.schema.json`` beside this module (JSON Schema 2020-12);
what several share is in ``common.schema.json``. A version changes where a field is renamed, removed
or means something else; a new field alone leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx_lowrank.runtime.machine import describe_machine

VERSIONS: Mapping[str, int] = {
    "inspect": 1,
    "cost": 1,
    "compress": 1,
    "estimate": 1,  # compress --estimate
    "search": 1,  # compress within a budget
    "verify": 1,
    "sweep": 1,
    "correct": 1,
    "finetune": 1,
    "cascade": 1,
    "bench": 1,
    "latency": 1,  # bench --save-latency
    "profile": 1,
    "report": 1,
    "doctor": 1,
}


def document(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document: `content`, JSON-ready, with its kind and version in front."""
    rest = {name: value for name, value in content.items() if name != "version"}
    return {"kind": kind, "version": VERSIONS[kind], **rest}


def measured(
    kind: str, content: Mapping[str, Any], *, provider: str, threads: int | None = None
) -> dict[str, Any]:
    """Return a document that says where its figures come from.

    Parameters
    ----------
    kind : str
        A key of `VERSIONS`.
    content : mapping
        JSON-ready.
    provider : str
        Name of the engine that the models ran in.
    threads : int, optional
        Threads asked for; None is the engine's own choice.
    """
    where = {"provider": provider, "threads": threads, "machine": describe_machine()}
    return {**document(kind, content), **where}
