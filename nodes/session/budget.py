"""The coordinator's budget: a round that would overspend is not offered.

Source: specs/52-ledger.md, specs/58-accounting.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from nodes.session.events import RunState
from nodes.session.ledger import PrivacyLedger
from nodes.session.offer import build_offer
from nodes.session.plan import RunPlan
from nodes.session.presence import RosterView
from nodes.session.privacy import NONE, PrivacySettings, cost_of
from secagg.dp.events import PrivacyEvent
from secagg.dp.ledger import History, LedgerSetBackError
from secagg.errors import ConfigError
from secagg.types import NodeId
from secagg.wire.messages import DpTerms, RoundOffer

__all__ = ["Budget", "NoOffer", "check_charged"]

_Asked: TypeAlias = tuple[int, tuple[NodeId, ...], tuple[NodeId, ...], int]


@dataclass(frozen=True, slots=True)
class NoOffer:
    """Why there is no further round."""

    complete: bool
    """Whether the run has a result."""
    reason: str
    wait: bool = False
    """Whether there may be one once more nodes are here."""


class Budget:
    """What a run may spend, and what the ledger says was spent.

    Args:
        settings: Unit and budget of the run.
        ledger: Of this coordinator, over all its runs.
    """

    def __init__(self, settings: PrivacySettings, ledger: PrivacyLedger) -> None:
        self._settings, self._ledger = settings, ledger
        self._unfit: tuple[_Asked, NoOffer] | None = None

    def next_offer(
        self,
        plan: RunPlan,
        run: RunState,
        cohort: Sequence[NodeId],
        here: Sequence[NodeId],
        roster: RosterView,
        epoch: DpTerms | None = None,
    ) -> RoundOffer | NoOffer:
        """Return the offer of the next round, or why there is none: it would overspend (S-18).

        Args:
            plan: What the operator wants.
            run: The run so far.
            cohort: Whom to ask.
            here: Whom else, those who sit out, if so few give no mean under the noise.
            roster: The newest.
            epoch: Terms of the round if it goes on with an epoch of correlated noise.
        """
        key = (run.next_round, tuple(cohort), tuple(here), roster.version)
        if self._unfit is not None and self._unfit[0] == key:
            return self._unfit[1]  # to find the noise takes a while, and nothing has changed
        offer = self._built(plan, run, key, epoch, members=len(roster.signing_keys))
        if isinstance(offer, NoOffer):
            self._unfit = key, offer
            return offer
        why, done = self._refusal(offer), run.rounds_done
        if not why:
            return offer
        reason = f"the privacy budget ends the run after {done} rounds: one more {why}"
        return NoOffer(complete=done > 0, reason=reason)

    def _built(
        self, plan: RunPlan, run: RunState, key: _Asked, epoch: DpTerms | None, *, members: int
    ) -> RoundOffer | NoOffer:
        """Try the cohort, in its epoch if there is one, then everybody who is here without one."""
        _, cohort, here, version = key
        everybody = here[: plan.cohort_size(len(here), members)]
        reason = ""
        for nodes, terms in dict.fromkeys(((cohort, epoch), (everybody, None))):
            try:
                return build_offer(
                    plan, run, nodes, version, members=members, spent=self._events, epoch=terms
                )
            except ConfigError as error:
                reason = f"{error}; {error.hint}"
        return NoOffer(complete=run.rounds_done > 0, reason=reason, wait=len(here) < members)

    @property
    def _events(self) -> Sequence[PrivacyEvent]:
        """What was charged to the run's unit, in all runs."""
        unit = self._settings.unit
        return [entry.event for entry in self._ledger.history().entries if entry.unit == unit]

    def resume(self, run: RunState) -> RunState:
        """Return the run with the first round id that was not charged: none is offered twice.

        A coordinator that was killed between charge and checkpoint finds its next id used.
        """
        history, next_round = self._ledger.history(), run.next_round
        while history.has(run.run_id, next_round):
            next_round += 1
        return replace(run, next_round=next_round)

    @property
    def spent(self) -> float | None:
        """Epsilon of all rounds so far; None where nobody is protected."""
        if self._settings.unit == NONE:
            return None
        return self._ledger.history().spent(self._settings.unit, self._settings.delta)

    def spent_with(self, offer: RoundOffer) -> float:
        """Return epsilon of all rounds so far of the offer's unit, and this one."""
        cost = cost_of(offer)
        return self._ledger.history().spent_with(cost.unit, cost.event, self._settings.delta)

    def _refusal(self, offer: RoundOffer) -> str:
        settings, cost = self._settings, cost_of(offer)
        if settings.unit == NONE:
            return ""
        if cost.unit != settings.unit:
            return f"protects {cost.unit!r}, privacy.unit is {settings.unit!r}"
        after = self.spent_with(offer)
        if after <= settings.epsilon:  # NaN overspends
            return ""
        return (
            f"would take epsilon to {after:.3g}, beyond privacy.epsilon = {settings.epsilon:g} "
            f"at delta = {settings.delta:g}"
        )

    def charge(self, run_id: bytes, offer: RoundOffer, wall_time: float) -> None:
        """Have the round's cost on disk before it is offered (B-01).

        Raises:
            ConfigError: it cannot be written, or the round was charged before.
        """
        cost = cost_of(offer)
        self._ledger.spend(run_id, offer.round_id, cost.unit, cost.event, now=wall_time)


def check_charged(run: RunState, history: History) -> None:
    """Check that all rounds that a checkpoint says were offered are in the ledger (S-22).

    Args:
        run: The checkpoint's; the ids below its next one were offered.
        history: This coordinator's ledger.

    Raises:
        LedgerSetBackError: some are missing.
    """
    offered = range(1, run.next_round)
    missing = [round_id for round_id in offered if not history.has(run.run_id, round_id)]
    if missing:
        raise LedgerSetBackError(
            f"the checkpoint has offered {len(offered)} rounds, and the privacy ledger beside it "
            f"lacks {len(missing)} of them, from round {missing[0]} on: it was set back or removed",
            hint="put the newest copies of privacy.jsonl and privacy.jsonl.head back; if there is "
            "none, choose another coordinator.state folder and count what was spent as unknown",
        )
