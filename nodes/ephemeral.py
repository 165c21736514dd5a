"""A party's identity for as long as a process lives: for simulations and attacks, never for a node.

A node's own is a `keys.Identity`, with a certificate and files.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secagg.types import NodeId

__all__ = ["EphemeralIdentity"]


class EphemeralIdentity:
    """A name and a fresh Ed25519 key.

    Args:
        node_id: The name; two identities of one name have different keys.
    """

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over `message`."""
        return self._key.sign(message)
