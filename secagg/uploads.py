"""Whose turn it is: a few nodes at a time, so that what is held does not grow with the cohort.

Source: specs/30-masking.md section 4.4, which specs/36-ckks.md shares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from secagg.types import NodeId
from secagg.wire.messages import UPLOAD_SLOTS

__all__ = ["BadUpload", "Turns"]


class BadUpload(Exception):
    """A chunk that costs its sender its place in the round."""


class Turns:
    """The turns of one phase.

    Args:
        seconds: How long a turn lasts.
        slots: How many nodes have one at a time.
    """

    def __init__(self, seconds: float, slots: int = UPLOAD_SLOTS) -> None:
        self._seconds, self._slots = seconds, slots
        self._queue: deque[NodeId] = deque()
        self._until: dict[NodeId, float] = {}

    @property
    def deadline(self) -> float | None:
        """When the first of the open turns ends."""
        return min(self._until.values(), default=None)

    def expect(self, nodes: Iterable[NodeId]) -> None:
        """Queue nodes that owe something."""
        self._queue.extend(nodes)

    def grant(self, now: float) -> list[NodeId]:
        """Give free slots to those next in line; return to whom."""
        granted: list[NodeId] = []
        while self._queue and len(self._until) < self._slots:
            node = self._queue.popleft()
            self._until[node] = now + self._seconds
            granted.append(node)
        return granted

    def has(self, node: NodeId) -> bool:
        """Tell whether it is a node's turn."""
        return node in self._until

    def end(self, node: NodeId) -> None:
        """Expect nothing more of a node."""
        self._until.pop(node, None)
        if node in self._queue:
            self._queue.remove(node)

    def expired(self, now: float) -> tuple[NodeId, ...]:
        """Return those whose time is up, or whose turn is the oldest."""
        until = max(now, self.deadline or now)
        return tuple(sorted(node for node, end in self._until.items() if end <= until))
