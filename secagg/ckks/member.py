"""A node's duty in the committee: one weighted sum of the shares that others dealt to it.

It never reads an input, and keeps no share but the running sum. Source: specs/36-ckks.md section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secagg.ckks.sealing import Dealer, open_box, verify_dealer
from secagg.ckks.views import terms_of
from secagg.errors import AuthenticationError, LocalProtocolError
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.messages import DealtShare, SumShare

__all__ = ["Member"]


class Member:
    """One member in one round.

    Args:
        setup: The round.
        node: This member.
        keys: What shares are sealed to.
        own: Its share of its own secret; None if its own input is not in the sum.
        weighted: Survivors, sorted, to their weights, as co-signed.
    """

    def __init__(
        self,
        setup: RoundSetup,
        node: NodeId,
        keys: HybridKeys,
        *,
        own: packed.Share | None,
        weighted: dict[NodeId, int],
    ) -> None:
        terms = terms_of(setup)
        self._setup, self._node, self._keys = setup, node, keys
        self._prime, self._length = terms.committee.modulus, terms.share_length
        self._weighted = weighted
        self._dealers = [dealer for dealer in weighted if dealer != node]
        self._taken = 0
        self._unopened: list[NodeId] = []
        self._total = np.zeros(self._length, dtype=np.uint32)
        if node in weighted:
            if own is None:
                raise LocalProtocolError("a survivor without a share of its own secret")
            self._fold(own, weighted[node])

    def __repr__(self) -> str:
        return f"<Member {self._node}>"

    @property
    def complete(self) -> bool:
        """Whether every survivor's share has come."""
        return self._taken == len(self._dealers)

    @property
    def unopened(self) -> tuple[NodeId, ...]:
        """Dealers whose share did not open or is none."""
        return tuple(self._unopened)

    def take(self, start: int, shares: Sequence[DealtShare]) -> str:
        """Add the next dealers' shares; return what is wrong with the message, or ""."""
        if start != self._taken or start + len(shares) > len(self._dealers) or not shares:
            return f"shares {start} to {start + len(shares)} where {self._taken} was due"
        for node, (agreement_key, kem_digest, signature, box) in zip(
            self._dealers[start:], shares, strict=False
        ):
            dealer = Dealer(node, agreement_key, kem_digest, signature)
            try:
                verify_dealer(self._setup, dealer)  # H-05
            except AuthenticationError as error:
                return f"relayed a forged key ({error})"
            share = self._open(dealer, box)
            if share is None:
                self._unopened.append(node)
            else:
                self._fold(share, self._weighted[node])
        self._taken += len(shares)
        return ""

    def answer(self) -> SumShare:
        """Return this member's share of the weighted sum; to be called once (H-12).

        Empty where a dealer's share is missing: what is left would be a share of another sum.
        """
        share = b"" if self._unopened else packed.encode(self._total, self._prime)
        return SumShare(self._setup.round_id, share, self.unopened)

    def _open(self, dealer: Dealer, box: bytes) -> packed.Share | None:
        try:
            data = open_box(self._setup, self._keys, dealer, self._node, box)
        except AuthenticationError:
            return None
        return packed.decode(data, self._prime, self._length)

    def _fold(self, share: packed.Share, weight: int) -> None:
        self._total = packed.weighted_sum(
            [self._total, share], prime=self._prime, weights=[1, weight]
        )
