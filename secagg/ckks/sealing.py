"""Keys that shares are sealed to, and shares sealed: by the dealer, for one member, for one round.

A member's keys are signed with its identity key over run, round and offer. A dealer seals to them
with its own X25519 key, signed alike, and an ML-KEM capsule: nobody but the two has the key, so
that the coordinator, which carries the boxes, can neither read nor replace one.

Source: specs/36-ckks.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from secagg.errors import AuthenticationError
from secagg.primitives import aead, hybrid, kem
from secagg.primitives.hybrid import SUITE_HYBRID, HybridKeys
from secagg.primitives.kdf import derive, digest
from secagg.primitives.signing import sign, verify
from secagg.round_setup import RoundSetup
from secagg.tags import BOX_KEY, SEALING_KEY
from secagg.types import NodeId, Signer
from secagg.wire.messages import SealingKey

__all__ = [
    "BOX_OVERHEAD",
    "Dealer",
    "dealer_of",
    "make_key",
    "open_box",
    "seal_box",
    "verify_dealer",
    "verify_key",
]

BOX_OVERHEAD = kem.CAPSULE_SIZE + aead.OVERHEAD
"""Bytes of a box beyond the share in it."""


@dataclass(frozen=True, slots=True)
class Dealer:
    """What a member needs to know of a dealer to open its box."""

    node_id: NodeId
    agreement_key: bytes = field(repr=False)
    kem_digest: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def make_key(setup: RoundSetup, signer: Signer, keys: HybridKeys) -> SealingKey:
    """Return the signed public keys of this node and round (H-04)."""
    agreement_key, kem_key = keys.public
    signed = _signed(setup, signer.node_id, SUITE_HYBRID, agreement_key, _digest_of(kem_key))
    signature = sign(signer, SEALING_KEY, *signed)
    return SealingKey(signer.node_id, SUITE_HYBRID, agreement_key, kem_key, signature)


def verify_key(setup: RoundSetup, key: SealingKey) -> None:
    """Check a node's keys against the roster, and that they can be sealed to (H-04).

    Raises:
        AuthenticationError: blames the node it names.
    """
    if key.suite != SUITE_HYBRID:
        raise AuthenticationError(key.node_id, f"its sealing key is of suite {key.suite}")
    verify_dealer(setup, dealer_of(key))
    hybrid.check_public(key.node_id, key.agreement_key, key.kem_key)


def dealer_of(key: SealingKey) -> Dealer:
    """Return what members are shown of a node that deals."""
    return Dealer(key.node_id, key.agreement_key, _digest_of(key.kem_key), key.signature)


def seal_box(
    setup: RoundSetup, keys: HybridKeys, dealer: NodeId, member: SealingKey, share: bytes
) -> bytes:
    """Seal a share for one member: ML-KEM capsule and ciphertext (H-05).

    Raises:
        AuthenticationError: blames the member; one of its keys is not usable.
    """
    shared, capsule = keys.encapsulate(member.node_id, member.agreement_key, member.kem_key)
    key = _box_key(setup, shared, dealer, member.node_id, capsule)
    return capsule + aead.seal(key, share, b"")


def open_box(
    setup: RoundSetup, keys: HybridKeys, dealer: Dealer, member: NodeId, box: bytes
) -> bytes:
    """Return the share in a box that `dealer`, verified, sealed for `member`, who holds `keys`.

    Raises:
        AuthenticationError: blames the dealer; the box is not what it sealed for this member in
            this round.
    """
    capsule, sealed = box[: kem.CAPSULE_SIZE], box[kem.CAPSULE_SIZE :]
    shared = keys.decapsulate(dealer.node_id, dealer.agreement_key, capsule)
    key = _box_key(setup, shared, dealer.node_id, member, capsule)
    return aead.unseal(key, sealed, b"", sender=dealer.node_id)


def verify_dealer(setup: RoundSetup, dealer: Dealer) -> None:
    """Check a dealer's key, which the coordinator has checked before it relayed it (H-05).

    Raises:
        AuthenticationError: blames the node it names.
    """
    node = dealer.node_id
    signed = _signed(setup, node, SUITE_HYBRID, dealer.agreement_key, dealer.kem_digest)
    roster_key = setup.signing_keys.get(node, b"")
    verify(roster_key, dealer.signature, SEALING_KEY, *signed, signer=node)


def _box_key(
    setup: RoundSetup, shared: bytes, dealer: NodeId, member: NodeId, capsule: bytes
) -> bytes:
    return derive(shared, BOX_KEY, *setup.context, dealer.encode(), member.encode(), capsule)


def _digest_of(kem_key: bytes) -> bytes:
    return digest(SEALING_KEY, kem_key)


def _signed(
    setup: RoundSetup, node: NodeId, suite: int, agreement_key: bytes, kem_digest: bytes
) -> tuple[bytes, ...]:
    return *setup.context, node.encode(), bytes([suite]), agreement_key, kem_digest
