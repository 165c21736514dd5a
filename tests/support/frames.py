"""Frames as they travel."""

from secagg.types import NodeId, Signer
from secagg.wire.envelope import seal_envelope
from secagg.wire.messages import Message

__all__ = ["sealed"]


def sealed(message: Message, signer: Signer, *, to: NodeId, run_id: bytes) -> bytes:
    """Return the bytes of an envelope."""
    return bytes(seal_envelope(message, signer, to=to, run_id=run_id))
