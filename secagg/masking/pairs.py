"""The secret of a pair of neighbours, and what follows from it.

One of the two, the one that stands before the other on the graph's circle, encapsulates a secret
to the other's ML-KEM key. Hashed with their X25519 secret it gives the pair's root, which only an
attack on both can find. From the root follow the seed of the pair's mask and the two keys under
which they seal shares for each other; the three are independent, so revealing the mask seed of a
node that dropped out opens no sealed share.

Source: specs/30-masking.md section 4.2; NIST SP 800-227 section 4.6 (composite key agreement).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from secagg.errors import AuthenticationError
from secagg.primitives import aead
from secagg.primitives.hybrid import HybridKeys
from secagg.primitives.kdf import derive, digest
from secagg.tags import BACKUP, PAIR_CONFIRMATION, PAIR_KEY, PAIR_MASK, SHARE_SEAL
from secagg.types import NodeId
from secagg.wire.messages import KeyAdvert

__all__ = ["NodeKeys", "PairSecret", "confirmation", "open_backup", "seal_backup"]

Context: TypeAlias = tuple[bytes, bytes, bytes]
_SEED_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class PairSecret:
    """What two neighbours share, without the means to compute it again."""

    mask_seed: bytes = field(repr=False)  # M-20
    """32 bytes; the seed of the one mask between the two (M-07)."""
    _root: bytes = field(repr=False)

    def seal_key(self, *, sender: NodeId, receiver: NodeId) -> bytes:
        """Return the key that seals the shares of `sender` for `receiver`, only those (M-08)."""
        return derive(self._root, SHARE_SEAL, sender.encode(), receiver.encode())


class NodeKeys:
    """A node's two key pairs of the round; neither is ever shared or backed up (M-05).

    Args:
        node: Whose keys these are.
        secret: 32 uniform bytes.
    """

    def __init__(self, node: NodeId, secret: bytes) -> None:
        self._node, self._keys = node, HybridKeys(secret)

    @property
    def public(self) -> tuple[bytes, bytes]:
        """The X25519 key (32 bytes) and the ML-KEM-768 key (1184 bytes)."""
        return self._keys.public

    def initiate(self, peer: KeyAdvert, binding: Sequence[bytes]) -> tuple[PairSecret, bytes]:
        """Encapsulate a secret to `peer`; return the pair's secret and the capsule (M-26).

        Args:
            peer: The other's verified advert.
            binding: Context and graph seed: what the secret is bound to.

        Raises:
            AuthenticationError: blames the peer; one of its keys is not usable.
        """
        shared, capsule = self._keys.encapsulate(peer.node_id, peer.agreement_key, peer.kem_key)
        return _pair(shared, (self._node, peer.node_id), (*binding, capsule)), capsule

    def respond(self, peer: KeyAdvert, capsule: bytes, binding: Sequence[bytes]) -> PairSecret:
        """Return the secret of the pair whose capsule `peer` sent.

        Raises:
            AuthenticationError: blames the peer; the capsule or its X25519 key is malformed.
        """
        shared = self._keys.decapsulate(peer.node_id, peer.agreement_key, capsule)
        return _pair(shared, (peer.node_id, self._node), (*binding, capsule))


def _pair(shared: bytes, pair: tuple[NodeId, NodeId], binding: tuple[bytes, ...]) -> PairSecret:
    root = derive(shared, PAIR_KEY, *binding, *(node.encode() for node in pair))
    return PairSecret(derive(root, PAIR_MASK), root)  # M-07


def confirmation(mask_seed: bytes) -> bytes:
    """Return the commitment to a pair's mask seed that its initiator publishes (M-26)."""
    return digest(PAIR_CONFIRMATION, mask_seed)


def seal_backup(
    round_secret: bytes, context: Context, node: NodeId, seeds: Sequence[bytes]
) -> bytes:
    """Seal the mask seeds of `node`, in order of its peers' ids, under its round secret (M-27).

    Returns:
        32 bytes a seed and 16.
    """
    key = derive(round_secret, BACKUP, *context, node.encode())
    return aead.seal(key, b"".join(seeds), b"")


def open_backup(
    round_secret: bytes, context: Context, node: NodeId, backup: bytes, peers: Sequence[NodeId]
) -> dict[NodeId, bytes]:
    """Return peer to mask seed from what `seal_backup` gave.

    Raises:
        AuthenticationError: blames `node`; its backup does not open or holds another number of
            seeds.
    """
    key = derive(round_secret, BACKUP, *context, node.encode())
    try:
        plaintext = aead.unseal(key, backup, b"", sender=node)
    except AuthenticationError:
        raise AuthenticationError(node, "the backup of its pair seeds does not open") from None
    if len(plaintext) != _SEED_SIZE * len(peers):
        raise AuthenticationError(node, "the backup of its pair seeds has the wrong size")
    return {
        peer: plaintext[_SEED_SIZE * index : _SEED_SIZE * (index + 1)]
        for index, peer in enumerate(peers)
    }
