"""What nodes give for each other, kept by the coordinator until the exchange closes.

With k neighbours a node gives k/2 capsules and k sealed boxes, so over a cohort they are most of
what the coordinator would hold; a daemon keeps them on its disk. All of it is public keys and
ciphertext. Source: specs/30-masking.md sections 4.2 and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from secagg.types import NodeId

__all__ = ["MakeSpool", "MemorySpool", "Relay", "Spool"]

_LENGTH = 2  # bytes of an item's length


class Spool(Protocol):
    """Bytes that are written once and read a few at a time."""

    def append(self, data: bytes) -> int:
        """Store `data`; return where it begins."""

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on, all of them stored before."""


MakeSpool: TypeAlias = Callable[[], Spool]
"""Returns an empty spool, whose contents go with it."""


class MemorySpool:
    """A spool in memory."""

    def __init__(self) -> None:
        self._data = bytearray()

    def append(self, data: bytes) -> int:
        """Store `data`; return where it begins."""
        start = len(self._data)
        self._data += data
        return start

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on."""
        return bytes(self._data[start : start + size])


class Relay:
    """Items of every giver, each by its number."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at: dict[NodeId, tuple[int, int]] = {}  # where a giver's items begin, bytes of each

    def put(self, giver: NodeId, items: Sequence[bytes]) -> None:
        """Store the items of `giver`, each shorter than 65 536 bytes."""
        size = _LENGTH + max(map(len, items), default=0)
        records = (len(item).to_bytes(_LENGTH, "little") + item for item in items)
        data = b"".join(record.ljust(size, b"\0") for record in records)
        self._at[giver] = self._spool.append(data), size

    def get(self, giver: NodeId, number: int) -> bytes:
        """Return an item that `giver` gave."""
        start, size = self._at[giver]
        record = self._spool.read(start + number * size, size)
        length = int.from_bytes(record[:_LENGTH], "little")
        return record[_LENGTH : _LENGTH + length]
