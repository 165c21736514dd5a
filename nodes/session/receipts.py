"""The receipts of nodes' privacy ledgers that the coordinator keeps for them (B-07).

A node signs how long its ledger is; the coordinator keeps the longest such receipt and gives it
back when the node joins, so that a ledger that was set back is noticed by its owner.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodes.session.events import ReceiptKept, SessionStep
from secagg.dp.receipts import Receipt
from secagg.types import NodeId

__all__ = ["Receipts"]


class Receipts:
    """The newest receipt of each node.

    Args:
        stored: Node to its receipt, from earlier starts; what is damaged is left out.
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
        kept = self._kept.get(node)
        if kept is not None and Receipt.from_bytes(kept, sender=node).count >= receipt.count:
            return SessionStep()
        self._kept[node] = data
        return SessionStep(events=(ReceiptKept(node, data),))
