"""Taking the masks out of the sum with what the share holders reveal.

For every survivor the self-mask seed is reconstructed, for every node that shared its secrets but
gave no input the round secret, never both for one node. Each reconstructed secret is checked
against what its owner signed in its key advert, and each pair seed against what the pair's
initiator published, so a wrong share or backup is noticed. Wrong shares are decoded; the work for
that has a bound.

Source: specs/30-masking.md section 4.6.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from secagg.errors import AuthenticationError
from secagg.masking import adverts, pairs
from secagg.masking.blame import Blame
from secagg.masking.masks import Apply, Mask, pair_mask, self_mask
from secagg.masking.transcript import Shares, Transcript
from secagg.primitives import shamir
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed
from secagg.types import NodeId, RingVector
from secagg.wire.messages import UnmaskAnswer

__all__ = ["Recovery"]

_MAX_WORK: Final = 200_000_000
"""Multiplications modulo the prime, roughly, for finding wrong shares in one round: at most some
30 s. A thousand nodes on the complete graph get 188 secrets decoded, and 166 liars need as many."""
_MAX_SEARCH: Final = 20_000_000
"""How much of that may go to leaving out shares that decoding alone does not find."""
_OVERHEAD: Final = 30  # shares more that a decoding seems to have, by the time that it takes


class Recovery:
    """Collects unmask answers and removes the masks."""

    def __init__(self, setup: RoundSetup, transcript: Transcript, apply: Apply) -> None:
        self._setup, self._seen, self._apply = setup, transcript, apply
        self._survivors = frozenset(transcript.survivors)
        self._dropped = frozenset(transcript.sharers) - self._survivors
        self._point = {n: index for index, n in enumerate(sorted(transcript.adverts), start=1)}
        self._node_at = {point: node for node, point in self._point.items()}
        self._shares = Shares(transcript.graph, self._point)
        self._blame = Blame(setup)
        self._unjudged: list[NodeId] = []
        """Owners whose secret was found without the shares of suspects."""
        self._work, self._search = _MAX_WORK, _MAX_SEARCH

    @property
    def blamed(self) -> tuple[PeerBlamed, ...]:
        """Who lied, as far as that is known, and about what."""
        return self._blame.verdict()

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
        self._shares.put(sender, dict((*answer.self_shares, *answer.key_shares)))
        return ""

    def unmask(self, total: RingVector) -> bool:
        """Remove every mask from `total`, in place; see `blamed` for who was found to lie.

        Returns:
            Whether it worked. If some secret cannot be reconstructed, `total` is not touched and
            not to be used.
        """
        secrets: dict[NodeId, bytes] = {}
        for owner in self._seen.sharers:
            if (secret := self._reconstruct(owner)) is not None:
                secrets[owner] = secret
        self._judge_suspects()
        if len(secrets) < len(self._seen.sharers):
            return False
        context = self._setup.context
        due = [
            self_mask(secrets[owner], context, negative=True) for owner in sorted(self._survivors)
        ]
        try:
            for owner in sorted(self._dropped):
                # Survivors added their side of the pair masks; the owner's side cancels it.
                due += self._pair_masks(owner, secrets[owner])
        except AuthenticationError as error:
            self._blame.convict(error.peer, error.fault)
            return False
        self._apply(total, due)  # M-01: the survivors' inputs are left
        return True

    def _pair_masks(self, owner: NodeId, round_secret: bytes) -> list[Mask]:
        """Return the masks that a dropped node shares with survivors, from its backup (M-27)."""
        seen, context = self._seen, self._setup.context
        peers = sorted(seen.graph.neighbours(owner) & seen.agreed)
        backup = seen.backups[owner]
        seeds = pairs.open_backup(round_secret, context, owner, backup, peers)
        slots = {peer: slot for slot, peer in enumerate(seen.graph.ahead(owner))}
        seats = seen.graph.seats(owner)
        due = []
        for peer in peers:
            if peer not in self._survivors:
                continue
            begun = (owner, slots[peer]) if peer in slots else (peer, seats[peer])
            if pairs.confirmation(seeds[peer]) != seen.confirmation(*begun):
                raise AuthenticationError(owner, "its backup does not hold its pair seeds")
            due.append(pair_mask(seeds[peer], me=owner, peer=peer))
        return due

    def _reconstruct(self, owner: NodeId) -> bytes | None:
        shares = self._shares.of(owner)
        if len(shares) < self._setup.threshold:
            return None
        # Honest shares lie on one polynomial, so all of them together give the same secret. If
        # they give it, no single one is wrong.
        trusted = self._trusted(shares)
        if len(trusted) >= self._setup.threshold:
            secret = shamir.combine(trusted)
            if self._matches(owner, secret):
                if len(trusted) < len(shares):
                    self._unjudged.append(owner)
                return secret
        return self._decode(owner, shares)

    def _trusted(self, shares: Mapping[int, bytes]) -> dict[int, bytes]:
        suspects = self._blame.suspects
        return {p: share for p, share in shares.items() if self._node_at[p] not in suspects}

    def _decode(self, owner: NodeId, shares: Mapping[int, bytes]) -> bytes | None:
        """Return the owner's secret although some shares are wrong, and note which these are."""
        threshold = self._setup.threshold
        if not self._affords((len(shares) + _OVERHEAD) ** 2):
            return None
        first = found = shamir.decode(shares, threshold)
        left_out: dict[int, bytes] = {}
        tries = self._with_some_left_out(shares)
        while found is None or not self._matches(owner, found[0]):
            rest = next(tries, None)
            if rest is None:
                wrong = None if first is None else len(first[1])
                self._blame.unfit_secret(owner, wrong, answers=len(shares))
                return None
            found = shamir.decode(rest, threshold)
            left_out = {point: shares[point] for point in shares.keys() - rest.keys()}
        secret, missed = found
        good = _chosen(shares, shares.keys() - missed - left_out.keys())
        missed |= {p for p in left_out if not _fits(good, p, left_out[p], secret)}
        self._note(owner, missed, answers=len(shares))
        return secret

    def _with_some_left_out(self, shares: Mapping[int, bytes]) -> Iterator[dict[int, bytes]]:
        """Yield shares to decode when there are too many wrong ones among all of them.

        Two wrong ones that are left out are worth one more that is found, and the commitment tells
        which choice is right: with few shares all choices can be tried, and wrong shares cost the
        round only if fewer than t are right.
        """
        spare = len(shares) - self._setup.threshold
        work = (len(shares) + _OVERHEAD) ** 2
        for count in range(2 - spare % 2, spare + 1, 2):
            if math.comb(len(shares), count) * work > min(self._search, self._work):
                return
            for choice in itertools.combinations(sorted(shares), count):
                self._search -= work
                self._work -= work
                yield {p: share for p, share in shares.items() if p not in choice}

    def _affords(self, work: int) -> bool:
        if work > self._work:
            return False
        self._work -= work
        return True

    def _note(self, owner: NodeId, missed: Collection[int], *, answers: int) -> None:
        self._blame.misfit(owner, [self._node_at[point] for point in missed], answers=answers)

    def _matches(self, owner: NodeId, secret: bytes | None) -> bool:
        if secret is None:
            return False
        advert = self._seen.adverts[owner]
        if owner in self._survivors:
            return adverts.self_commitment(secret) == advert.self_commitment
        return adverts.round_commitment(secret) == advert.round_commitment

    def _judge_suspects(self) -> None:
        """Compare the shares of suspects with secrets that were found without them.

        Owners with the same holders are taken together: the coefficients are theirs in common.
        """
        if not self._unjudged:
            return
        alike: dict[tuple[int, ...], list[NodeId]] = defaultdict(list)
        for owner in self._unjudged:
            alike[tuple(sorted(self._shares.of(owner)))].append(owner)
        challenge = self._challenge()
        for points, owners in alike.items():
            trusted = sorted(self._trusted(dict.fromkeys(points, b"")))
            size, sets = len(points) + _OVERHEAD, 1 + len(points) - len(trusted)
            if len(trusted) < self._setup.threshold:
                continue
            if not self._affords(size * sets * (size + len(owners))):
                continue
            self._judge(owners, trusted, sorted(set(points) - set(trusted)), challenge)

    def _judge(
        self,
        owners: Sequence[NodeId],
        trusted: Sequence[int],
        suspects: Sequence[int],
        challenge: bytes,
    ) -> None:
        """Note which shares of suspects the polynomials through the trusted ones miss."""
        shares = {owner: self._shares.of(owner) for owner in owners}
        good, secrets = {}, {}
        for owner in owners:
            chosen = _chosen(shares[owner], trusted)
            if not shamir.lie_on_one_polynomial(chosen, self._setup.threshold, challenge=challenge):
                continue  # errors cancel at 0, and whose they are is left open
            secret = shamir.combine(chosen)
            if self._matches(owner, secret):
                good[owner], secrets[owner] = chosen, secret
        missed: dict[NodeId, set[int]] = {owner: set() for owner in good}
        for point in suspects:
            for owner, chosen in good.items():
                if not _fits(chosen, point, shares[owner][point], secrets[owner]):
                    missed[owner].add(point)
        for owner, points in missed.items():
            self._note(owner, points, answers=len(shares[owner]))

    def _challenge(self) -> bytes:
        """Return 32 bytes that nobody knew who chose a share."""
        hashed = hashlib.sha256()
        for owner in self._seen.sharers:
            for point, share in sorted(self._shares.of(owner).items()):
                hashed.update(point.to_bytes(4, "little") + share)
        return hashed.digest()


def _chosen(shares: Mapping[int, bytes], points: Iterable[int]) -> dict[int, bytes]:
    return {point: shares[point] for point in points}


def _fits(good: Mapping[int, bytes], point: int, share: bytes, secret: bytes | None) -> bool:
    """Tell whether a share lies on the polynomial through t or more good ones and the secret."""
    return shamir.combine({**good, point: share}) == secret
