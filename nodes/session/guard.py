"""What a node allows: offers against its policy and its privacy ledger, and each round charged.

Source: specs/56-policy.md, specs/52-ledger.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from nodes.session.epochs import Attendance
from nodes.session.ledger import PrivacyLedger
from nodes.session.offer import check_offer
from nodes.session.policy import (
    NodePolicy,
    PolicyFacts,
    difference_refusal,
    facts_of_training,
    rounds_today,
)
from nodes.session.privacy import RoundCost, cost_of
from secagg.dp.ledger import History, LedgerSetBackError
from secagg.dp.receipts import Receipt, check_receipt, make_receipt
from secagg.errors import ConfigError, OfferRefused, RemoteProtocolError, SecAggError
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RefusalReason, Signer
from secagg.wire.messages import RoundOffer

__all__ = ["Guard"]

_UNREADABLE: Final = "this node's privacy ledger cannot be used, so its budget counts as spent"


class Guard:
    """Stands between the coordinator's offers and a node.

    Args:
        node_id: The node.
        policy: What it agrees to.
        ledger: What it has spent.
        signing_key: Active node of the roster to Ed25519 key.
        members: How many active nodes the newest roster has.
    """

    def __init__(
        self,
        node_id: NodeId,
        policy: NodePolicy,
        ledger: PrivacyLedger,
        *,
        signing_key: Callable[[NodeId], bytes | None],
        members: Callable[[], int],
    ) -> None:
        self._node_id, self._policy, self.ledger = node_id, policy, ledger
        self._signing_key, self._members = signing_key, members
        self.epoch = Attendance(node_id)
        self.previous: tuple[NodeId, ...] | None = None  # contributors of our last sum
        self.begun: tuple[float, ...] = ()  # when rounds of the last day were accepted
        self.halted = False  # the ledger was set back: no round from here on (B-07)
        self._shown = 0  # entries that the coordinator has a receipt for

    def judge(self, offer: RoundOffer, run_id: bytes, wall_time: float) -> RoundSetup:
        """Hold an offer against policy, ledger and roster; return what to run (S-06).

        Raises:
            OfferRefused: with the rule that forbids it.
        """
        try:
            cost = cost_of(offer, self.epoch.slot_for(offer, run_id))
        except (ConfigError, ArithmeticError) as error:
            raise OfferRefused(RefusalReason.PARAMETERS_UNSAFE, str(error)) from error
        try:
            history = self.ledger.history()
        except ConfigError as error:  # B-10; where the ledger lies is not the coordinator's concern
            hint = f"{error}; {error.hint}"
            raise OfferRefused(RefusalReason.BUDGET_SPENT, _UNREADABLE, hint=hint) from error
        facts = PolicyFacts(
            members=self._members(),
            previous=self.previous,
            rounds_today=rounds_today(self.begun, wall_time),
            unit=cost.unit,
            epsilon_after=self._after(history, cost),
            training=facts_of_training(offer.training),
        )
        setup = check_offer(
            offer,
            run_id,
            node_id=self._node_id,
            policy=self._policy,
            signing_key=self._signing_key,
            facts=facts,
        )
        self.epoch.enter(offer, run_id)
        begun = (time for time in self.begun if rounds_today([time], wall_time))
        self.begun = (*begun, wall_time)  # G-08: what begins to train, charged later or not
        return setup

    def _after(self, history: History, cost: RoundCost) -> float:
        """Return what the ledger would hold of the required unit; infinite for any other."""
        policy = self._policy
        if policy.require != cost.unit or policy.delta is None:
            return math.inf
        try:
            return history.spent_with(cost.unit, cost.event, policy.delta)
        except ConfigError:  # G-01: at this delta nothing can be said of it
            return math.inf

    def charge(self, run_id: bytes, offer: RoundOffer, wall_time: float) -> str:
        """Have the round's cost on disk before anything of it is sent (B-01).

        Returns:
            "", or why nothing may be sent.
        """
        share = self.epoch.share_for(offer)
        cost = cost_of(offer, share.slot if share else None)
        try:
            self.ledger.spend(run_id, offer.round_id, cost.unit, cost.event, now=wall_time)
        except SecAggError as error:
            return f"the privacy ledger: {error}; {error.hint}"
        return ""

    def too_similar(self, contributors: tuple[NodeId, ...]) -> str:
        """Return why this node must not co-sign a sum over `contributors`, or "" (G-09)."""
        if self._node_id not in contributors:
            return ""  # of the committee that opens it, no more
        return difference_refusal(self.previous, contributors, self._policy)

    def cosigned(self, offer: RoundOffer, contributors: tuple[NodeId, ...]) -> None:
        """Note a view that this node co-signed, itself among the contributors."""
        self.previous = contributors  # G-07: whether it was opened, only others know
        self.epoch.cosigned(offer, contributors)

    def receipt(self, signer: Signer) -> bytes:
        """Return a receipt for the whole ledger, or nothing where it is empty or unreadable."""
        try:
            history = self.ledger.history()
        except ConfigError:
            return b""  # every offer is refused for it
        self._shown = len(history)
        return make_receipt(signer, history).to_bytes() if history else b""

    def new_receipt(self, signer: Signer) -> bytes:
        """Return a receipt if the ledger has grown since the last one."""
        try:
            grown = len(self.ledger.history()) > self._shown
        except ConfigError:
            return b""
        return self.receipt(signer) if grown else b""

    def set_back(self, receipt: bytes, key: bytes | None) -> str:
        """Return why this node's ledger cannot be the newest, by a receipt of its own, or ""."""
        if not receipt or key is None:
            return ""
        try:
            read = Receipt.from_bytes(receipt, sender=self._node_id)
            check_receipt(self.ledger.history(), read, self._node_id, key)
        except LedgerSetBackError as error:
            self.halted = True
            return f"{error}; {error.hint}"
        except (ConfigError, RemoteProtocolError):
            return ""  # no receipt of ours (B-11); a ledger that cannot be read refuses every offer
        return ""
