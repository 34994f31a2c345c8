"""A list of named things that users of the package can add to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Named(Protocol):
    """Something that has a name of its own: an object, or a class with a class attribute."""

    @property
    def name(self) -> str:
        """The name by which users call it."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Named things in order; what is added from the outside is one of them like the others.

    Parameters
    ----------
    items : iterable
        The things to begin with.
    lacks : callable, optional
        Says in a sentence what a thing lacks to be one of them; None if nothing.
    """

    def __init__(
        self, items: Iterable[T] = (), *, lacks: Callable[[T], str | None] | None = None
    ) -> None:
        self._items: list[T] = []
        self._lacks = lacks
        for item in items:
            self.add(item)

    def add(self, item: T) -> None:
        """Add `item` at the end.

        Raises
        ------
        ValueError
            If it lacks something, or there is one of its name already.
        """
        if self._lacks is not None and (reason := self._lacks(item)):
            raise ValueError(reason)
        if item.name in self.names:
            raise ValueError(f"the name '{item.name}' is taken; give it another")
        self._items.append(item)

    @contextmanager
    def adding(self, item: T) -> Iterator[T]:
        """Add `item` for as long as the context lasts, as tests do."""
        self.add(item)
        try:
            yield item
        finally:
            self._items.remove(item)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(item.name for item in self._items)

    def __getitem__(self, name: str) -> T:
        """Return the one called `name`; raise KeyError if there is none."""
        for item in self._items:
            if item.name == name:
                return item
        raise KeyError(name)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items
