"""How low-rank the layers of a model are: singular values of the unfoldings of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.gate import open_model
from onnx_lowrank.graph.layers import find_layers, layer_weight
from onnx_lowrank.types import Array, ModelSource

MODES = ("outputs", "inputs", "kernel 1", "kernel 2", "kernel 3")


@dataclass(frozen=True)
class Spectrum:
    """The spectra of one layer.

    Attributes
    ----------
    layer : str
        Its name.
    shape : tuple of int
        Of its weight, ``(F, C / group, *kernel)``.
    modes : mapping of str to ndarray, shape (rank,), float64
        For each mode, singular values of the unfolding along it, falling.
    """

    layer: str
    shape: tuple[int, ...]
    modes: Mapping[str, Array]


def unfolding_spectra(weight: Array) -> dict[str, Array]:
    """Return the singular values of every unfolding of a weight.

    They are roots of the eigenvalues of the smaller Gram matrix: those below 1e-8 of the largest
    are rounding, and given as they come out.

    Parameters
    ----------
    weight : ndarray, shape (F, C / group, *kernel), float64

    Returns
    -------
    dict of str to ndarray
        Modes of size 1 are left out; of a matrix, whose two unfoldings have the same singular
        values, only ``outputs`` is given.
    """
    spectra = {}
    for axis, size in enumerate(weight.shape if weight.ndim > 2 else weight.shape[:1]):
        if size == 1:
            continue
        flat = np.moveaxis(weight, axis, 0).reshape(size, -1)
        gram = flat @ flat.T if size <= flat.shape[1] else flat.T @ flat
        spectra[MODES[axis]] = np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0, None))
    return spectra


def layer_spectra(model: ModelSource) -> tuple[Spectrum, ...]:
    """Return the spectra of every layer with a constant weight, in graph order.

    Raises
    ------
    ModelError
        If the model cannot be read.
    """
    loaded = open_model(model)
    editor = GraphEditor(loaded)
    found = []
    for layer in find_layers(loaded, check_values=True):
        if layer.reason is None:
            weight = layer_weight(editor, layer)
            found.append(Spectrum(layer.name, weight.shape, unfolding_spectra(weight)))
    return tuple(found)


def ranks_for(values: Array, share: float) -> int:
    """Return how many of the largest singular values hold a share of the squared norm."""
    energy = np.cumsum(values**2)
    if energy[-1] == 0:
        return 0
    return min(int(np.searchsorted(energy, share * energy[-1])) + 1, len(values))
