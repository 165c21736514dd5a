"""A ledger's length and head, signed by its owner and kept by somebody else.

A node signs how long its ledger is; the coordinator keeps the longest such receipt and gives it
back when the node joins. A ledger that was set back does not match it. Source: specs/52-ledger.md
section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from secagg import tags
from secagg.dp.ledger import History
from secagg.errors import AuthenticationError, ConfigError, DecodeError
from secagg.primitives.signing import SIGNATURE_SIZE, sign, verify
from secagg.types import NodeId, Signer, check_node_id

__all__ = ["MAX_RECEIPT", "Receipt", "check_receipt", "make_receipt"]

_COUNT_SIZE: Final = 8
_HEAD_SIZE: Final = 32
_FIXED: Final = 1 + _COUNT_SIZE + _HEAD_SIZE + SIGNATURE_SIZE
MAX_RECEIPT: Final = _FIXED + 63
"""Most bytes of a receipt."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a ledger's owner once signed of it."""

    node: NodeId
    """The owner."""
    count: int
    """Entries there were."""
    head: bytes
    """Hash of the last of them, 32 bytes."""
    signature: bytes = field(repr=False)
    """The owner's Ed25519 signature, 64 bytes."""

    def to_bytes(self) -> bytes:
        """Return length of the id (1 byte), id, count (8 bytes, little-endian), head, signature."""
        name = self.node.encode("ascii")
        count = self.count.to_bytes(_COUNT_SIZE, "little")
        return bytes([len(name)]) + name + count + self.head + self.signature

    @classmethod
    def from_bytes(cls, data: bytes, *, sender: NodeId) -> Receipt:
        """Read a receipt; its signature is not checked.

        Raises:
            DecodeError: blames `sender`; these bytes are none.
        """
        size = data[0] if data else 0
        if len(data) != _FIXED + size:
            raise DecodeError(sender, "a ledger receipt of another length")
        try:
            node = check_node_id(data[1 : 1 + size].decode("ascii"))
        except (UnicodeDecodeError, ConfigError):
            raise DecodeError(sender, "a ledger receipt without a node id") from None
        head_at = 1 + size + _COUNT_SIZE
        return cls(
            node,
            int.from_bytes(data[1 + size : head_at], "little"),
            data[head_at : head_at + _HEAD_SIZE],
            data[head_at + _HEAD_SIZE :],
        )

    def verify(self, node: NodeId, key: bytes) -> None:
        """Check that `node`, whose Ed25519 key is `key`, made this receipt.

        Raises:
            AuthenticationError: blames `node`; the receipt is another's, or forged.
        """
        if self.node != node:
            raise AuthenticationError(node, f"a ledger receipt of {self.node}")
        verify(
            key,
            self.signature,
            tags.LEDGER_RECEIPT,
            *_parts(node, self.count, self.head),
            signer=node,
        )


def make_receipt(signer: Signer, history: History) -> Receipt:
    """Return a receipt for the whole ledger as it is now, which must be on the disk."""
    count, head = len(history), history.head
    signature = sign(signer, tags.LEDGER_RECEIPT, *_parts(signer.node_id, count, head))
    return Receipt(signer.node_id, count, head, signature)


def check_receipt(history: History, receipt: Receipt, node: NodeId, key: bytes) -> None:
    """Hold a ledger against what its owner signed earlier.

    Args:
        history: The ledger.
        receipt: As the coordinator gave it back.
        node: The owner, ourselves.
        key: Our own Ed25519 public key, 32 bytes.

    Raises:
        AuthenticationError: the receipt is not ours, which shows nothing about the ledger: to be
            treated as if there were none, for who gives a wrong one could have given none (B-11).
        LedgerSetBackError: we once signed a longer ledger, or another one: nothing may be sent.
    """
    receipt.verify(node, key)
    history.check_witness(receipt.count, receipt.head, "a receipt signed by this node")  # B-07


def _parts(node: NodeId, count: int, head: bytes) -> tuple[bytes, bytes, bytes]:
    return node.encode(), count.to_bytes(_COUNT_SIZE, "little"), head
