"""A training run on disk: arrays and JSON in one .npz, so that a killed run goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnx_lowrank.errors import DataError
from onnx_lowrank.files import UNREADABLE, add_digest, atomic, check_digest, real_path
from onnx_lowrank.types import AnyArray

_KIND = "checkpoint"  # the file may be renamed


@dataclass
class State:
    """Where a run stands.

    Attributes
    ----------
    values, best : list of ndarray
        The weights now, and those of the best validation.
    optimiser : dict of str to ndarray
        Its state, as ``NUMBER.KEY``.
    notes : dict
        All else, ready for JSON.
    """

    values: list[AnyArray]
    best: list[AnyArray]
    optimiser: dict[str, AnyArray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, state: State, run: str) -> None:
    """Write a checkpoint atomically; `run` says which run it is of.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    arrays: dict[str, Any] = {f"value.{i}": value for i, value in enumerate(state.values)}
    arrays |= {f"best.{i}": value for i, value in enumerate(state.best)}
    arrays |= {f"optimiser.{key}": value for key, value in state.optimiser.items()}
    arrays["notes"] = np.array(json.dumps({"run": run, **state.notes}))
    with atomic(real_path(path), "free space or choose another --checkpoint") as file:
        np.savez(file, **arrays)
        add_digest(file, _KIND)


def read_checkpoint(path: Path, run: str) -> State | None:
    """Read a checkpoint; None if there is none.

    Raises
    ------
    DataError
        It is damaged, or of another run.
    """
    try:
        with path.open("rb") as file:
            check_digest(file, _KIND)
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: np.asarray(stored[name]) for name in stored.files}
        notes = json.loads(str(arrays.pop("notes")))
        found = notes.pop("run")
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise damaged(path, error) from None
    if found != run:
        raise DataError(
            f"the checkpoint {path} is of other models, data or settings; "
            "remove it or choose another --checkpoint"
        )

    def listed(kind: str) -> list[AnyArray]:
        count = sum(name.startswith(f"{kind}.") for name in arrays)
        return [arrays[f"{kind}.{i}"] for i in range(count)]

    prefix = "optimiser."
    optimiser = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return State(listed("value"), listed("best"), optimiser, notes)


def damaged(path: Path, error: Exception) -> DataError:
    """Return the error for a checkpoint that no run can go on from."""
    return DataError(
        f"cannot read the checkpoint {path}: {error}; remove it or choose another --checkpoint"
    )
