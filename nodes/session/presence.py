"""Who belongs, who is here, who has fallen silent, and who sits out for what it did to rounds.

Source: specs/60-session.md sections 2 and 5 (S-10, S-17).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nodes.session.suspicion import Suspicion
from secagg.types import NodeId

__all__ = ["Presence", "RosterView"]

_MAX_BENCH: Final = 8  # rounds that a node which keeps missing them is not waited for, at most


@dataclass(frozen=True, slots=True)
class RosterView:
    """What the session needs of the newest verified roster."""

    version: int
    document: bytes
    signing_keys: dict[NodeId, bytes]
    """Active nodes only."""


@dataclass(slots=True)
class _Record:
    misses: int = 0
    benched_until: int = 0
    """First round id this node is offered again."""


class Presence:
    """The nodes that the coordinator counts as present."""

    def __init__(self) -> None:
        self._entries: dict[NodeId, float] = {}  # when last heard
        self._records: dict[NodeId, _Record] = {}  # stay when a node goes: a hello clears nothing
        self._suspicion = Suspicion()

    def __contains__(self, node: object) -> bool:
        return node in self._entries

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def nodes(self) -> list[NodeId]:
        """All present nodes, sorted."""
        return sorted(self._entries)

    def admit(self, node: NodeId, now: float) -> None:
        """Count a node in."""
        self._entries[node] = now
        self._records.setdefault(node, _Record())

    def forget(self, node: NodeId) -> bool:
        """Count a node out; return whether it was in."""
        return self._entries.pop(node, None) is not None

    def heard(self, node: NodeId, now: float) -> None:
        """Note a sign of life."""
        self._entries[node] = now

    def silent(self, now: float, liveness: float) -> list[NodeId]:
        """Return the nodes that have been silent for longer than `liveness` seconds."""
        return [node for node, heard in self._entries.items() if now - heard > liveness]

    def cohort(self, round_id: int, least: int) -> list[NodeId]:
        """Return whom to offer a round: those who do not sit out, or all if those are too few.

        After a round that somebody spoilt some who may have are left out, if it can be (S-17).
        """
        ready = [n for n in self.nodes if self._records[n].benched_until <= round_id]
        return self._suspicion.choose(ready if len(ready) >= least else self.nodes, least)

    def spoilt(self, cohort: Iterable[NodeId], next_round: int) -> NodeId | None:
        """Note a round that a node made fail; return who alone was in all of them, if so (S-17).

        It sits out as one that missed two rounds more.
        """
        found = self._suspicion.spoilt(cohort)
        if found is not None:
            self.missed(found, next_round)
            self.missed(found, next_round)
        return found

    def stop_searching(self) -> None:
        """Ask everybody again: a round of fewer failed for another reason (S-17)."""
        self._suspicion.give_up()

    def summed(self, nodes: Iterable[NodeId]) -> None:
        """Note a round that gave a sum: who did its part is forgiven its misses."""
        did = tuple(nodes)
        for node in did:
            self._records[node] = _Record()
        self._suspicion.summed(did)

    def missed(self, node: NodeId, next_round: int) -> None:
        """Let a node that missed a round sit out 0, 1, 3, then 7 rounds (S-10)."""
        record = self._records.setdefault(node, _Record())
        record.misses = min(record.misses + 1, 10)
        record.benched_until = next_round + min(_MAX_BENCH, 2 ** (record.misses - 1)) - 1
