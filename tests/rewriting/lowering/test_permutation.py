from __future__ import annotations

import numpy as np

from onnx_lowrank.rewriting.lowering.permutation import (
    inverse,
    is_identity,
    is_permutation,
    transposed_blocks,
)


def test_the_inverse_undoes_a_permutation() -> None:
    permutation = np.random.default_rng(0).permutation(17).astype(np.int64)
    x = np.arange(17) * 10
    np.testing.assert_array_equal(x[permutation][inverse(permutation)], x)


def test_only_the_identity_is_the_identity() -> None:
    assert is_identity(np.arange(4))
    assert not is_identity(np.array([0, 2, 1, 3]))


def test_permutations_name_every_index_once() -> None:
    assert is_permutation(np.array([2, 0, 1]), 3)
    assert not is_permutation(np.array([0, 0, 1]), 3)
    assert not is_permutation(np.array([[0, 1]]), 2)


def test_blocks_are_transposed() -> None:
    outer, inner, width = 3, 2, 4
    x = np.array([f"{g}{h}{k}" for g in range(outer) for h in range(inner) for k in range(width)])
    expected = [f"{g}{h}{k}" for h in range(inner) for g in range(outer) for k in range(width)]
    assert x[transposed_blocks(outer, inner, width)].tolist() == expected
