"""A registry: an ordered list of named things, to which others can add."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from onnx_lowrank.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str


ONE, TWO, THREE = Thing("one"), Thing("two"), Thing("three")


def test_things_keep_their_order_and_are_found_by_name() -> None:
    registry = Registry([TWO, ONE])
    registry.add(THREE)
    assert list(registry) == [TWO, ONE, THREE]
    assert registry.names == ("two", "one", "three")
    assert len(registry) == 3
    assert ONE in registry
    assert Thing("four") not in registry
    assert registry["one"] is ONE
    with pytest.raises(KeyError, match="four"):
        registry["four"]


def test_a_name_is_taken_once() -> None:
    registry = Registry([ONE])
    with pytest.raises(ValueError, match="the name 'one' is taken; give it another"):
        registry.add(Thing("one"))
    with pytest.raises(ValueError, match="taken"):
        Registry([ONE, Thing("one")])
    assert list(registry) == [ONE]


def test_what_a_context_adds_it_takes_away() -> None:
    registry = Registry([ONE])
    with registry.adding(TWO) as added:
        assert added is TWO
        assert list(registry) == [ONE, TWO]
    assert list(registry) == [ONE]
    with pytest.raises(RuntimeError), registry.adding(TWO):
        raise RuntimeError
    assert list(registry) == [ONE]


def test_who_walks_through_it_is_not_disturbed_by_what_is_added() -> None:
    registry = Registry([ONE, TWO])
    for thing in registry:
        registry.add(Thing(f"after {thing.name}"))
    assert registry.names == ("one", "two", "after one", "after two")
