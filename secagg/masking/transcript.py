"""What the coordinator keeps of a round's messages for its end.

With n nodes of k neighbours there are n·k shares and n·k/2 confirmations: they are kept as one byte
string a node, by the slots of its neighbours (`Graph.around`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from secagg.masking.graph import Graph
from secagg.primitives.shamir import SHARE_SIZE
from secagg.types import NodeId
from secagg.wire.messages import KeyAdvert

__all__ = ["Shares", "Transcript"]

_CONFIRMATION: Final = 32
_NO_SHARE: Final = bytes(SHARE_SIZE)


@dataclass(slots=True)
class Transcript:
    """What the coordinator keeps of a round's messages for its end."""

    adverts: dict[NodeId, KeyAdvert] = field(default_factory=dict)
    graph: Graph = field(default_factory=lambda: Graph((), 0, {}))
    confirmations: dict[NodeId, bytes] = field(default_factory=dict)
    """Initiator to the commitments to its mask seeds, by slot; read with `confirmation`."""
    agreed: frozenset[NodeId] = frozenset()
    backups: dict[NodeId, bytes] = field(default_factory=dict, repr=False)
    sharers: tuple[NodeId, ...] = ()
    survivors: tuple[NodeId, ...] = ()

    def confirmation(self, initiator: NodeId, slot: int) -> bytes:
        """Return the commitment that `initiator` gave to its mask seed with a successor."""
        start = _CONFIRMATION * slot
        return self.confirmations[initiator][start : start + _CONFIRMATION]


class Shares:
    """The shares of all answers: as many as nodes and neighbours, so without an object for each."""

    def __init__(self, graph: Graph, points: Mapping[NodeId, int]) -> None:
        self._graph, self._point = graph, points
        self._data: dict[NodeId, tuple[bytes, bytes]] = {}
        """Holder to flags of what it gave, and the shares, by neighbours' slots, itself last."""

    def put(self, holder: NodeId, shares: Mapping[NodeId, bytes]) -> None:
        """Store what `holder` holds of each owner."""
        owners = (*self._graph.around(holder), holder)
        given = bytes(owner in shares for owner in owners)
        self._data[holder] = given, b"".join(shares.get(owner, _NO_SHARE) for owner in owners)

    def of(self, owner: NodeId) -> dict[int, bytes]:
        """Return evaluation point to share."""
        found = {}
        for index, holder in enumerate((owner, *self._graph.around(owner)), start=1):
            # `Graph.seats`: among the neighbours of a neighbour a node counts from the other end.
            if holder in self._data and (answer := self._data[holder])[0][-index]:
                shares, start = answer[1], len(answer[1]) - SHARE_SIZE * index
                found[self._point[holder]] = shares[start : start + SHARE_SIZE]
        return found
