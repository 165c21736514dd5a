"""What nodes give for each other, kept by the coordinator until the exchange closes.

With k neighbours a node gives k/2 capsules and k sealed boxes, so over a cohort they are most of
what the coordinator would hold; a daemon keeps them on its disk. All of it is public keys and
ciphertext. Source: specs/30-masking.md sections 4.2 and 4.3.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from secagg.types import NodeId

__all__ = ["MakeSpool", "MemorySpool", "Relay", "Spool"]


class Spool(Protocol):
    """Bytes that are written once and read a few at a time."""

    def append(self, data: bytes) -> int:
        """Store `data`; return what to call it."""

    def read(self, name: int, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on of what `append` called `name`."""


MakeSpool: TypeAlias = Callable[[], Spool]
"""Returns an empty spool, whose contents go with it."""


class MemorySpool:
    """A spool in memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def append(self, data: bytes) -> int:
        """Store `data`; return what to call it."""
        self._parts.append(data)
        return len(self._parts) - 1

    def read(self, name: int, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on of what `append` called `name`."""
        return self._parts[name][start : start + size]


class Relay:
    """Items of every giver, each by its number."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at: dict[NodeId, tuple[int, array[int]]] = {}
        """What the spool calls a giver's items, and where each begins and ends."""

    def put(self, giver: NodeId, items: Sequence[bytes]) -> None:
        """Store the items of `giver`."""
        bounds = array("I", itertools.accumulate(map(len, items), initial=0))
        self._at[giver] = self._spool.append(b"".join(items)), bounds

    def get(self, giver: NodeId, number: int) -> bytes:
        """Return an item that `giver` gave."""
        name, bounds = self._at[giver]
        return self._spool.read(name, bounds[number], bounds[number + 1] - bounds[number])
