"""Taking the masks out of the sum with what the share holders reveal.

For every survivor the self-mask seed is reconstructed, for every node that shared its secrets but
gave no input the round secret, never both for one node. Each reconstructed secret is checked
against what its owner signed in its key advert, and each pair seed against what the pair's
initiator published, so a wrong share or backup is noticed.

Source: specs/30-masking.md section 4.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from secagg.errors import AuthenticationError
from secagg.masking import adverts, pairs
from secagg.masking.graph import Graph
from secagg.masking.masks import Apply, Mask, pair_mask, self_mask
from secagg.primitives import shamir
from secagg.primitives.kdf import digest
from secagg.steps import PeerBlamed
from secagg.types import NodeId, RingVector, RoundSetup
from secagg.wire.messages import KeyAdvert, UnmaskAnswer

__all__ = ["Recovery", "Transcript"]

_MAX_TRIES: Final = 500
"""Choices of t shares that a round may try beyond one a secret. Few liars are found in a handful;
near the threshold only luck would help, and the round aborts as `BAD_SHARES`."""


@dataclass(slots=True)
class Transcript:
    """What the coordinator keeps of a round's messages for its end."""

    adverts: dict[NodeId, KeyAdvert] = field(default_factory=dict)
    graph: Graph = field(default_factory=lambda: Graph((), 0, {}))
    confirmations: dict[tuple[NodeId, NodeId], bytes] = field(default_factory=dict)
    """(initiator, responder) to the commitment to their mask seed."""
    agreed: frozenset[NodeId] = frozenset()
    backups: dict[NodeId, bytes] = field(default_factory=dict, repr=False)
    sharers: tuple[NodeId, ...] = ()
    survivors: tuple[NodeId, ...] = ()


class Recovery:
    """Collects unmask answers and removes the masks."""

    def __init__(self, setup: RoundSetup, transcript: Transcript, apply: Apply) -> None:
        self._setup, self._seen, self._apply = setup, transcript, apply
        self._survivors = frozenset(transcript.survivors)
        self._dropped = frozenset(transcript.sharers) - self._survivors
        self._point = {n: index for index, n in enumerate(sorted(transcript.adverts), start=1)}
        self._node_at = {point: node for node, point in self._point.items()}
        self._shares: dict[NodeId, dict[int, bytes]] = {node: {} for node in transcript.sharers}
        self._tries = _MAX_TRIES + len(self._shares)
        self._blamed: dict[NodeId, str] = {}

    @property
    def blamed(self) -> tuple[PeerBlamed, ...]:
        """Who was found to have lied, and about what."""
        return tuple(PeerBlamed(node, why) for node, why in sorted(self._blamed.items()))

    def take(self, sender: NodeId, answer: UnmaskAnswer) -> str:
        """Store the shares of one answer; return what is wrong with it, or ""."""
        mine = self._seen.graph.neighbours(sender) | {sender}
        for shares, owners in (
            (answer.self_shares, mine & self._survivors),
            (answer.key_shares, mine & self._dropped),
        ):
            named = [owner for owner, _ in shares]
            if named != sorted(set(named)) or not set(named) <= owners:
                return "its unmask answer reveals shares nobody asked for"
        for owner, share in (*answer.self_shares, *answer.key_shares):
            self._shares[owner][self._point[sender]] = share
        return ""

    def unmask(self, total: RingVector) -> bool:
        """Remove every mask from `total`, in place; see `blamed` for who was found to lie.

        Returns:
            Whether it worked. If some secret cannot be reconstructed, `total` is not touched and
            not to be used.
        """
        secrets: dict[NodeId, bytes] = {}
        for owner in sorted(self._shares):
            secret = self._reconstruct(owner)
            if secret is None:
                return False
            secrets[owner] = secret
        context = self._setup.context
        due = [
            self_mask(secrets[owner], context, negative=True) for owner in sorted(self._survivors)
        ]
        try:
            for owner in sorted(self._dropped):
                # Survivors added their side of the pair masks; the owner's side cancels it.
                due += self._pair_masks(owner, secrets[owner])
        except AuthenticationError as error:
            self._blamed[error.peer] = error.fault
            return False
        self._apply(total, due)
        return True

    def _pair_masks(self, owner: NodeId, round_secret: bytes) -> list[Mask]:
        """Return the masks that a dropped node shares with survivors, from its backup (M-27)."""
        seen, context = self._seen, self._setup.context
        peers = sorted(seen.graph.neighbours(owner) & seen.agreed)
        backup = seen.backups[owner]
        seeds = pairs.open_backup(round_secret, context, owner, backup, peers)
        ahead = seen.graph.successors(owner)
        due = []
        for peer in peers:
            if peer not in self._survivors:
                continue
            pair = (owner, peer) if peer in ahead else (peer, owner)
            if pairs.confirmation(seeds[peer]) != seen.confirmations[pair]:
                raise AuthenticationError(owner, "its backup does not hold its pair seeds")
            due.append(pair_mask(seeds[peer], me=owner, peer=peer))
        return due

    def _reconstruct(self, owner: NodeId) -> bytes | None:
        """Return the owner's secret; blame the holders whose shares of it are wrong."""
        shares, threshold = self._shares[owner], self._setup.threshold
        if len(shares) < threshold:
            return None
        # Honest shares lie on one polynomial, so all of them together give the same secret. If
        # they give it, no single one is wrong.
        secret = shamir.combine(shares)
        if secret is not None and self._matches(owner, secret):
            return secret
        # Whoever lied about one secret is asked last about the next.
        points = sorted(shares, key=lambda point: (self._node_at[point] in self._blamed, point))
        while self._tries > 0:
            self._tries -= 1
            chosen = points[:threshold]
            secret = shamir.combine({point: shares[point] for point in chosen})
            if secret is not None and self._matches(owner, secret):
                self._blame_liars(owner, chosen)
                return secret
            label = self._tries.to_bytes(4, "little")
            points.sort(key=lambda point: digest(label, self._node_at[point].encode()))
        return None

    def _matches(self, owner: NodeId, secret: bytes) -> bool:
        advert = self._seen.adverts[owner]
        if owner in self._survivors:
            return adverts.self_commitment(secret) == advert.self_commitment
        return adverts.round_commitment(secret) == advert.round_commitment

    def _blame_liars(self, owner: NodeId, good: list[int]) -> None:
        """Swap each other share in for a good one: if the secret changes, the share is wrong."""
        shares = self._shares[owner]
        for point in sorted(set(shares) - set(good)):
            swapped = [*good[1:], point]
            secret = shamir.combine({each: shares[each] for each in swapped})
            if secret is None or not self._matches(owner, secret):
                self._blamed[self._node_at[point]] = "it revealed wrong shares"
