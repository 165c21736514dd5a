"""Taking the masks out of the sum with what the share holders reveal.

For every survivor the self-mask seed is reconstructed, for every node that shared its secrets but
gave no input the round secret, never both for one node. Each reconstructed secret is checked
against what its owner signed in its key advert, so a wrong share is noticed.

Source: specs/30-masking.md section 4.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from secagg.masking import masks
from secagg.primitives import agreement, shamir
from secagg.primitives.kdf import digest
from secagg.steps import PeerBlamed
from secagg.types import (
    NodeId,
    RingVector,
    RoundSetup,
)
from secagg.wire.messages import KeyAdvert, UnmaskAnswer

__all__ = ["Recovery"]

_MAX_TRIES: Final = 500
"""Choices of t shares that a round may try beyond one a secret. Few liars are found in a handful;
near the threshold only luck would help, and the round aborts as `BAD_SHARES`."""


class Recovery:
    """Collects unmask answers and removes the masks."""

    def __init__(
        self,
        setup: RoundSetup,
        adverts: Mapping[NodeId, KeyAdvert],
        neighbours: Mapping[NodeId, frozenset[NodeId]],
        sharers: frozenset[NodeId],
        survivors: frozenset[NodeId],
    ) -> None:
        self._setup, self._adverts, self._neighbours = setup, adverts, neighbours
        self._survivors, self._dropped = survivors, sharers - survivors
        self._point = {node: index for index, node in enumerate(sorted(adverts), start=1)}
        self._shares: dict[NodeId, dict[int, bytes]] = {node: {} for node in sharers}
        self._tries = _MAX_TRIES + len(sharers)
        self._node_at = {point: node for node, point in self._point.items()}

    def take(self, sender: NodeId, answer: UnmaskAnswer) -> str:
        """Store the shares of one answer; return what is wrong with it, or ""."""
        mine = self._neighbours[sender] | {sender}
        allowed = (
            (answer.self_shares, mine & self._survivors),
            (
                answer.key_shares,
                mine & self._dropped,
            ),
        )
        for shares, owners in allowed:
            named = [owner for owner, _ in shares]
            if named != sorted(set(named)) or not set(named) <= owners:
                return "its unmask answer reveals shares nobody asked for"
        for owner, share in (*answer.self_shares, *answer.key_shares):
            self._shares[owner][self._point[sender]] = share
        return ""

    def unmask(self, total: RingVector) -> tuple[PeerBlamed, ...] | None:
        """Remove every mask from `total`, in place.

        Returns:
            Who gave wrong shares; or None if some secret cannot be reconstructed, and then
            `total` is not to be used.
        """
        secrets: dict[NodeId, bytes] = {}
        liars: set[NodeId] = set()
        for owner in sorted(self._shares):
            secret, wrong = self._reconstruct(owner, liars)
            if secret is None:
                return None
            secrets[owner] = secret
            liars |= wrong
        context = self._setup.context
        for owner in sorted(self._survivors):
            masks.add_self_mask(total, context, secrets[owner], negative=True)
        for owner in sorted(self._dropped):
            # Survivors added their side of the pair masks; adding the owner's side cancels it.
            peers = {
                peer: self._adverts[peer].mask_key
                for peer in sorted(self._neighbours[owner] & self._survivors)
            }
            private = masks.mask_private_key(secrets[owner])
            masks.add_pair_masks(total, context, private, me=owner, peers=peers)
        return tuple(PeerBlamed(liar, "it revealed wrong shares") for liar in sorted(liars))

    def _reconstruct(
        self, owner: NodeId, suspects: set[NodeId]
    ) -> tuple[bytes | None, set[NodeId]]:
        """Return the owner's secret and the holders whose shares of it are wrong."""
        shares, threshold = self._shares[owner], self._setup.threshold
        # Whoever lied about one secret is asked last about the next.
        points = sorted(shares, key=lambda point: (self._node_at[point] in suspects, point))
        while len(points) >= threshold and self._tries > 0:
            self._tries -= 1
            chosen = points[:threshold]
            secret = shamir.combine({point: shares[point] for point in chosen})
            if secret is not None and self._matches(owner, secret):
                return secret, self._liars(owner, chosen)
            label = self._tries.to_bytes(4, "little")
            points.sort(key=lambda point: digest(label, self._node_at[point].encode()))
        return None, set()

    def _matches(self, owner: NodeId, secret: bytes) -> bool:
        advert = self._adverts[owner]
        if owner in self._survivors:
            return masks.self_commitment(secret) == advert.self_commitment
        return agreement.public_key(masks.mask_private_key(secret)) == advert.mask_key

    def _liars(self, owner: NodeId, good: list[int]) -> set[NodeId]:
        """Swap each other share in for a good one: if the secret changes, the share is wrong."""
        shares, liars = self._shares[owner], set[NodeId]()
        for point in sorted(set(shares) - set(good)):
            swapped = [*good[1:], point]
            secret = shamir.combine({each: shares[each] for each in swapped})
            if secret is None or not self._matches(owner, secret):
                liars.add(self._node_at[point])
        return liars
