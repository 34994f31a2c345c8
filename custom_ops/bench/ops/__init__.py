"""What tests, benchmarks and hostile nodes need of each op of the table, one module per op.

A module has

- ``layers(rng, kernel)``: layers of 6 channels to test, of many structures;
- ``points()`` and ``timed(rng, point)``: what the benchmark times, and of each its parts and its
  multiply-adds, or None where no dense Conv does the same;
- ``hostile(pick, rng, kernel)``: a layer to make hostile, and its channels.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np
from cases import Parts
from tables import OPS

from onnx_lowrank.rewriting.lowering.functions import ACTIVATING

MODULES: dict[str, ModuleType] = {
    name: import_module(f"{__name__}.{op.file}") for name, op in OPS.items()
}


def convolutions(rng: np.random.Generator, kernel: tuple[int, ...]) -> list[Parts]:
    """Return the layers to test of every op that has a window and an activation."""
    return [parts for op in OPS if op in ACTIVATING for parts in MODULES[op].layers(rng, kernel)]
