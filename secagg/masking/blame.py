"""Who is to blame for shares that do not fit.

A share that does not fit was revealed wrongly by its holder or dealt wrongly by its owner, and the
coordinator, who saw neither the box nor its content, cannot tell which. So nobody is blamed
outright unless honest nodes could not look like that, whatever at most A others do.

Source: specs/30-masking.md section 4.6, M-19.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Final

from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed
from secagg.types import NodeId

__all__ = ["Blame"]

_NAMED: Final = 3
"""Owners that one reason names; a liar may have lied about thousands."""


class Blame:
    """Collects misfits, pairs of a secret's owner and a holder, and judges them at the end."""

    def __init__(self, setup: RoundSetup) -> None:
        self._threshold = setup.threshold
        # Fewer than t of the holders of one secret collude, or it is not secret (M-02).
        self._most = max(1, min(setup.colluders, setup.threshold - 1))
        self._misfits: dict[NodeId, dict[NodeId, int]] = defaultdict(dict)
        """Holder to owner to how many other holders must have lied if both are honest."""
        self._guilty: dict[NodeId, str] = {}

    @property
    def suspects(self) -> frozenset[NodeId]:
        """Holders of a share that did not fit."""
        return frozenset(self._misfits)

    def misfit(self, owner: NodeId, holders: Collection[NodeId], *, answers: int) -> None:
        """Note that a polynomial with the owner's secret misses the shares of `holders`.

        Args:
            owner: Whose secret it is, checked against the commitment.
            holders: All whose shares the polynomial, of degree below t, misses.
            answers: Shares that there are of this secret.
        """
        # Two such polynomials share fewer than t places, 0 among them. So if this is not the
        # owner's, it meets that one in at most t - 2 of the answers.
        others = answers - self._threshold + 2 - len(holders)
        for holder in holders:
            self._misfits[holder][owner] = others

    def unfit_secret(self, owner: NodeId, wrong: int | None, *, answers: int) -> None:
        """Note that no polynomial with what the owner committed to was found.

        Args:
            owner: Whose secret it is.
            wrong: How many shares the one polynomial misses that decoding found, None if none.
            answers: Shares that there are of this secret.
        """
        spare = answers - self._threshold
        # With an honest owner at most A shares are wrong. Half the spare would have been decoded,
        # and another polynomial misses all but t - 1 of the right ones.
        certain = 2 * self._most <= spare if wrong is None else wrong + self._most <= spare
        if certain:
            self.convict(owner, "its shares do not fit what it committed to")

    def convict(self, node: NodeId, why: str) -> None:
        """Note a proven fault."""
        self._guilty.setdefault(node, why)

    def verdict(self) -> tuple[PeerBlamed, ...]:
        """Return who is blamed, in order of id: who is proven to have lied, and who may have."""
        proven = {**self._proven(), **self._guilty}
        reasons = dict(proven)
        for holder, owners in self._misfits.items():
            left = {owner: others for owner, others in owners.items() if owner not in proven}
            if left and holder not in proven:
                reasons[holder] = self._doubt(left)
        return tuple(
            PeerBlamed(node, why, certain=node in proven) for node, why in sorted(reasons.items())
        )

    def _proven(self) -> dict[NodeId, str]:
        """Return who has misfits with more nodes than can have lied, or with itself."""
        revealed, dealt = defaultdict(set), defaultdict(set)
        for holder, owners in self._misfits.items():
            for owner, others in owners.items():
                if others > self._most:
                    revealed[holder].add(owner)
                    dealt[owner].add(holder)
        proven = {}
        for node in revealed.keys() | dealt.keys():
            if len(revealed[node]) > self._most:
                proven[node] = "it revealed wrong shares"
            elif len(dealt[node]) > self._most:
                proven[node] = "it dealt wrong shares"
            elif node in dealt[node] or len(revealed[node] | dealt[node]) > self._most:
                proven[node] = "it dealt or revealed wrong shares"
        return proven

    def _doubt(self, owners: dict[NodeId, int]) -> str:
        named = ", ".join(sorted(owners)[:_NAMED])
        if len(owners) > _NAMED:
            named += f" and {len(owners) - _NAMED} more"
        others = min(owners.values())
        either = "" if others > self._most else f", or at least {others} others lied"
        if len(owners) == 1:
            return (
                f"a share of {named} that it revealed is wrong, or {named} dealt it wrong{either}"
            )
        return f"shares of {named} that it revealed are wrong, or they dealt them wrong{either}"
