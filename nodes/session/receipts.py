"""The receipts of nodes' privacy ledgers that the coordinator keeps for them (B-07).

A node signs how long its ledger is; the coordinator keeps the longest such receipt and gives it
back when the node joins, so that a ledger that was set back is noticed by its owner.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodes.session.events import ReceiptKept, SessionStep
from secagg.dp.receipts import Receipt
from secagg.errors import RemoteProtocolError
from secagg.types import NodeId

__all__ = ["Receipts"]


class Receipts:
    """The newest receipt of each node.

    Args:
        stored: Node to its receipt, from earlier starts; what is damaged counts for nothing.
    """

    def __init__(self, stored: Mapping[NodeId, bytes]) -> None:
        self._kept = dict(stored)

    def of(self, node: NodeId) -> bytes:
        """Return the newest receipt of a node, or nothing."""
        return self._kept.get(node, b"")

    def take(self, node: NodeId, data: bytes, key: bytes) -> SessionStep:
        """Keep a node's receipt if it is of a longer ledger than the one kept.

        Raises:
            RemoteProtocolError: it is not a receipt of that node, whose Ed25519 key is `key`.
        """
        receipt = Receipt.from_bytes(data, sender=node)
        receipt.verify(node, key)
        if self._count(node, key) >= receipt.count:
            return SessionStep()
        self._kept[node] = data
        return SessionStep(events=(ReceiptKept(node, data),))

    def _count(self, node: NodeId, key: bytes) -> int:
        """Return how many entries the kept receipt is of, -1 where none holds.

        One that was damaged on the disk, or signed by a key that was rotated since, would help its
        owner no more (B-11): a newer one replaces it, whatever its count.
        """
        try:
            receipt = Receipt.from_bytes(self.of(node), sender=node)
            receipt.verify(node, key)
        except RemoteProtocolError:
            return -1
        return receipt.count
