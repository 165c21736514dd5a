"""The coordinator's budget: a round that would overspend is not offered.

Source: specs/52-ledger.md, specs/58-accounting.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nodes.session.events import RunState
from nodes.session.ledger import PrivacyLedger
from nodes.session.offer import build_offer
from nodes.session.plan import RunPlan
from nodes.session.presence import RosterView
from nodes.session.privacy import NONE, PrivacySettings, cost_of
from secagg.dp.events import PrivacyEvent
from secagg.errors import ConfigError
from secagg.types import NodeId
from secagg.wire.messages import RoundOffer

__all__ = ["Budget", "NoOffer"]


@dataclass(frozen=True, slots=True)
class NoOffer:
    """Why there is no further round."""

    complete: bool
    """Whether the run has a result."""
    reason: str


class Budget:
    """What a run may spend, and what the ledger says was spent.

    Args:
        settings: Unit and budget of the run.
        ledger: Of this coordinator, over all its runs.
    """

    def __init__(self, settings: PrivacySettings, ledger: PrivacyLedger) -> None:
        self._settings, self._ledger = settings, ledger

    def next_offer(
        self,
        plan: RunPlan,
        run: RunState,
        cohort: tuple[NodeId, ...],
        roster: RosterView,
    ) -> RoundOffer | NoOffer:
        """Return the offer of the next round, or why there is none: it would overspend (S-18)."""
        try:
            offer = build_offer(
                plan,
                run,
                cohort,
                roster.version,
                members=len(roster.signing_keys),
                spent=self._events,
            )
        except ConfigError as error:
            return NoOffer(complete=False, reason=f"{error}; {error.hint}")
        why, done = self._refusal(offer), run.rounds_done
        if not why:
            return offer
        reason = f"the privacy budget ends the run after {done} rounds: one more {why}"
        return NoOffer(complete=done > 0, reason=reason)

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

    def _refusal(self, offer: RoundOffer) -> str:
        settings, cost = self._settings, cost_of(offer)
        if settings.unit == NONE:
            return ""
        if cost.unit != settings.unit:
            return f"protects {cost.unit!r}, privacy.unit is {settings.unit!r}"
        after = self._ledger.history().spent_with(cost.unit, cost.event, settings.delta)
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
