"""Each stored tensor counts once, and what something else reads stays."""

from __future__ import annotations

from onnx_lowrank.storage import StoredTensor, StoredWeight, count_stored, freed_by, stored_after


def weight(key: str, params: int = 10, *, elsewhere: bool = False, scale: str = "") -> StoredWeight:
    tensors = [StoredTensor(key, 4 * params, elsewhere)]
    if scale:
        tensors.append(StoredTensor(scale, 4, False))
    return StoredWeight(key, params, tuple(tensors))


def test_a_weight_of_two_layers_counts_once() -> None:
    assert count_stored([weight("a"), weight("a"), weight("b", 3)]) == (13, 52)


def test_a_scale_of_two_weights_counts_once_and_is_no_parameter() -> None:
    assert count_stored([weight("a", scale="s"), weight("b", scale="s")]) == (20, 84)


def test_what_a_kept_layer_or_another_node_reads_stays() -> None:
    assert stored_after([weight("a")], [weight("a"), weight("b")]) == (10, 40)
    assert stored_after([], [weight("a", elsewhere=True), weight("b")]) == (10, 40)
    assert stored_after([weight("a", scale="s")], [weight("b", scale="s")]) == (10, 44)
    assert stored_after([], []) == (0, 0)


def test_a_scale_that_is_read_elsewhere_does_not_keep_the_weight() -> None:
    shared = StoredWeight("a", 10, (StoredTensor("a", 10, False), StoredTensor("s", 4, True)))
    assert not shared.elsewhere
    assert stored_after([], [shared]) == (0, 4)


def test_what_sets_of_layers_free() -> None:
    layers = {
        "one": [weight("a"), weight("b", 2)],
        "two": [weight("a")],
        "three": [weight("c", 5, elsewhere=True)],
        "four": [weight("d", 1, scale="s")],
        "five": [weight("e", 1, scale="s")],
    }
    assert freed_by(layers) == {
        frozenset({"one", "two"}): (10, 40),
        frozenset({"one"}): (2, 8),
        frozenset({"four"}): (1, 4),
        frozenset({"five"}): (1, 4),
        frozenset({"four", "five"}): (0, 4),
    }
