"""Where the numbers of a layer's weight are stored in a model, so that nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StoredTensor:
    """A tensor with values that a model stores.

    Attributes
    ----------
    name : str
        Its name; with the place where it is stored inside a body or function.
    bytes : int
        Of its values, in the type that they are stored in.
    elsewhere : bool
        Whether something that is no layer reads it: it then stays when layers are replaced.
    """

    name: str
    bytes: int
    elsewhere: bool


@dataclass(frozen=True)
class StoredWeight:
    """A weight of a layer and the tensors that it is made of.

    Attributes
    ----------
    key : str
        The same for all layers that read the same numbers, transposed or in another type even.
    params : int
        How many numbers.
    tensors : tuple of StoredTensor
        What they are computed from, scales and zero points included.
    """

    key: str
    params: int
    tensors: tuple[StoredTensor, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def elsewhere(self) -> bool:
        """Whether its numbers stay when the layers that read them are replaced."""
        largest = max(self.tensors, key=lambda tensor: tensor.bytes, default=None)
        return largest is not None and largest.elsewhere


def count_stored(weights: Iterable[StoredWeight]) -> tuple[int, int]:
    """Return the parameters and the bytes of weights, each stored tensor counted once."""
    params: dict[str, int] = {}
    tensors: dict[str, int] = {}
    for weight in weights:
        params[weight.key] = weight.params
        tensors.update({tensor.name: tensor.bytes for tensor in weight.tensors})
    return sum(params.values()), sum(tensors.values())


def stored_after(kept: Iterable[StoredWeight], replaced: Iterable[StoredWeight]) -> tuple[int, int]:
    """Return the parameters and bytes that stay when the layers of `replaced` no longer read them.

    What a kept layer reads too stays, and what something that is no layer reads.
    """
    kept, replaced = tuple(kept), tuple(replaced)
    params = {w.key: w.params for w in (*kept, *(w for w in replaced if w.elsewhere))}
    tensors = {t.name: t.bytes for w in kept for t in w.tensors}
    tensors |= {t.name: t.bytes for w in replaced for t in w.tensors if t.elsewhere}
    return sum(params.values()), sum(tensors.values())


def freed_by(
    layers: Mapping[str, Sequence[StoredWeight]],
) -> dict[frozenset[str], tuple[int, int]]:
    """Return what is stored no more once all layers of a set are replaced, by these sets.

    Parameters
    ----------
    layers : mapping of str to sequence of StoredWeight
        The weights of all layers of a model, by layer name.

    Returns
    -------
    dict of frozenset of str to (int, int)
        Parameters and bytes. Layers that share no tensor are sets of one.
    """
    readers: dict[str, set[str]] = {}
    params: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for name, weights in layers.items():
        for weight in weights:
            if not weight.elsewhere:
                params[weight.key] = weight.params
                readers.setdefault(f"numbers of {weight.key}", set()).add(name)
            for tensor in weight.tensors:
                if not tensor.elsewhere:
                    sizes[tensor.name] = tensor.bytes
                    readers.setdefault(f"tensor {tensor.name}", set()).add(name)
    found: dict[frozenset[str], tuple[int, int]] = {}
    for key, count in params.items():
        group = frozenset(readers[f"numbers of {key}"])
        old = found.get(group, (0, 0))
        found[group] = (old[0] + count, old[1])
    for key, size in sizes.items():
        group = frozenset(readers[f"tensor {key}"])
        old = found.get(group, (0, 0))
        found[group] = (old[0], old[1] + size)
    return found
