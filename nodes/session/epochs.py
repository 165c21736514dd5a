"""Epochs of correlated noise over rounds: who may go on with one, on either side.

All of it lives in memory. A node that restarts waits for the next epoch, a coordinator that does
begins one. Source: specs/54-correlated-noise.md sections 6 and 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodes.session.epoch_terms import at_position, epoch_terms
from nodes.session.offer import noised_encoding_of, thresholds_of
from nodes.session.plan import RunPlan
from secagg.dp.correlated import CorrelatedShare
from secagg.errors import LocalProtocolError, OfferRefused
from secagg.types import NodeId, RefusalReason
from secagg.wire.messages import CorrelatedTerms, DpTerms, RoundOffer

__all__ = ["Attendance", "Epochs"]

_WAIT = "this node waits for the next epoch"


class Attendance:
    """A node's part in an epoch: its share of the noise, and what it goes on with only.

    Args:
        node_id: The node.
    """

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._share: CorrelatedShare | None = None
        self._began: tuple[bytes, DpTerms, int] | None = None  # run, terms of round 0, dimension

    def slot_for(self, offer: RoundOffer, run_id: bytes) -> int | None:
        """Return in which slot this node would be in the offered round; None without an epoch.

        Raises:
            OfferRefused: the round goes on with an epoch, and this node cannot (C-09, C-13, C-16).
            ConfigError: the terms make no sense.
        """
        dp = offer.dp
        if dp is None or dp.correlated is None:
            return None
        if self._node_id not in offer.cohort:
            raise OfferRefused(
                RefusalReason.NOT_IN_COHORT, "this node is not in the offered cohort"
            )
        encoding, epoch = noised_encoding_of(offer, dp), dp.correlated
        terms = epoch_terms(dp, encoding)
        if epoch.position == 0:
            return offer.cohort.index(self._node_id) % epoch.separation  # C-06
        if self._share is None or self._began is None:  # C-16
            raise _refused(
                f"round {epoch.position} of an epoch of which this node has no noise: it was not "
                "in all rounds before, or has restarted since"
            )
        began_run, began, dim = self._began
        if (began_run, _epoch(began).epoch) != (run_id, epoch.epoch):  # C-16
            raise _refused("the round is of another epoch than the one this node is in")
        if at_position(dp, 0) != began or encoding.dim != dim:  # C-13
            raise _refused("the terms are not those that the epoch began with")
        self._share.admit(terms, epoch.position, offer.cohort)  # C-09
        return self._share.slot

    def enter(self, offer: RoundOffer, run_id: bytes) -> None:
        """Take up an offer that `slot_for` and the policy let pass: a first round begins anew."""
        slot, dp = self.slot_for(offer, run_id), offer.dp
        if slot is None or dp is None or _epoch(dp).position:
            return
        encoding = noised_encoding_of(offer, dp)
        self._share = CorrelatedShare(epoch_terms(dp, encoding), slot)
        self._began = (run_id, dp, encoding.dim)

    def share_for(self, offer: RoundOffer) -> CorrelatedShare | None:
        """Return this node's share of the noise of an entered round; None without an epoch."""
        return self._share if offer.dp is not None and offer.dp.correlated is not None else None

    def gives_data(self, offer: RoundOffer) -> bool:
        """Tell whether an update of this node goes into the sum of an entered round (C-06)."""
        share = self.share_for(offer)
        return share is None or share.gives_data

    def cosigned(self, offer: RoundOffer, contributors: Sequence[NodeId]) -> None:
        """Note that this node co-signed `contributors`, itself among them, for an entered round."""
        share = self.share_for(offer)
        if share is None:
            return
        share.survived(contributors)  # C-09
        if share.position == share.terms.rounds:
            self._share = None  # C-10: nothing is taken back any more


class Epochs:
    """The coordinator's epoch, if one is open: its next round's terms, and who may be in it."""

    def __init__(self) -> None:
        self._next: DpTerms | None = None
        self._members: frozenset[NodeId] = frozenset()

    @property
    def next_terms(self) -> DpTerms | None:
        """Terms of the next round if it goes on with the epoch."""
        return self._next

    def cohort(
        self, ready: Sequence[NodeId], plan: RunPlan, members: int
    ) -> tuple[tuple[NodeId, ...], bool]:
        """Return whom to offer the next round, and whether that is everybody it could be for.

        An epoch that has too few nodes left ends here, and the round begins another (C-17).

        Args:
            ready: Who may be asked, sorted.
            plan: What the operator wants.
            members: Active nodes of the roster.
        """
        if self._next is not None:
            stay = [node for node in ready if node in self._members]
            size = plan.cohort_size(len(stay), members)
            if size >= plan.least_cohort(members):
                _, _, _, colluders = thresholds_of(plan, size, max(size, members))
                if size >= self._next.honest + colluders:
                    return tuple(stay[:size]), len(stay) == len(self._members)
            self._next = None
        size = plan.cohort_size(len(ready), members)
        return tuple(ready[:size]), len(ready) == members

    def closed(self, offer: RoundOffer, contributors: Sequence[NodeId]) -> None:
        """Note how a round ended; without a sum, `contributors` empty, its epoch is over (C-17)."""
        dp, self._next = offer.dp, None
        if dp is None or dp.correlated is None or not contributors:
            return
        position = dp.correlated.position + 1
        if position < dp.correlated.rounds:
            self._next = at_position(dp, position)
            self._members = frozenset(contributors)


def _epoch(dp: DpTerms) -> CorrelatedTerms:
    if dp.correlated is None:
        raise LocalProtocolError("terms of independent noise")
    return dp.correlated


def _refused(why: str) -> OfferRefused:
    return OfferRefused(RefusalReason.PARAMETERS_UNSAFE, why, hint=_WAIT)
