"""The coordinator's side of a run: who is here, one role per round, the model between rounds.

::

    WAITING ─enough nodes→ ROUND ─sum or abort→ WAITING … ─last round→ CLOSING ─farewells→ OVER

No sockets, no clock (S-02): the daemon and the simulator drive it. Source: specs/60-session.md
section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Final

from nodes.session.budget import Budget, NoOffer
from nodes.session.epochs import Epochs
from nodes.session.events import (
    Checkpoint,
    Joined,
    Left,
    NodeRefused,
    PeerRejected,
    PhaseChanged,
    RoundLost,
    RoundStarted,
    RunOver,
    RunState,
    SessionEvent,
    SessionStep,
    WaitingForNodes,
)
from nodes.session.greetings import Pace, final_messages, welcome
from nodes.session.inputs import mean_of
from nodes.session.ledger import PrivacyLedger
from nodes.session.model_transfer import model_chunks
from nodes.session.offer import setup_of
from nodes.session.open_round import OpenRound
from nodes.session.outbox import Outbox
from nodes.session.plan import RunPlan
from nodes.session.presence import Presence, RosterView
from nodes.session.receipts import Receipts
from nodes.session.run_state import ServerStep, advanced, after_offer, done_event, weighed
from nodes.session.suspicion import SPOILT
from secagg.errors import LocalProtocolError, RemoteProtocolError, RunMismatchError
from secagg.roles import Scheme
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.steps import (
    PeerBlamed,
    PeersMissed,
    PhaseEntered,
    RoundFailed,
    Step,
    SumReady,
)
from secagg.types import AbortReason, NodeId, Signer
from secagg.version import PROTOCOL_VERSION
from secagg.wire.envelope import Body, open_envelope
from secagg.wire.messages import (
    Farewell,
    Heartbeat,
    Hello,
    Message,
    Probe,
    Refusal,
    RosterUpdate,
    RoundClosed,
    RoundMessage,
    RoundOffer,
    Welcome,
)

__all__ = ["Coordinator", "ServerStep", "State"]

_CATCH_UP: Final = 2.0  # seconds before the round after an aborted one, for nodes to come back


class State(StrEnum):
    """Where the run is; see the figure above."""

    WAITING = "waiting"
    ROUND = "round"
    CLOSING = "closing"
    OVER = "over"


class Coordinator:
    """State machine of the coordinator over a run.

    Args:
        plan: What the operator wants.
        state: A fresh run's state, or the last checkpoint's.
        signer: The coordinator's identity.
        roster: The newest roster.
        server_step: The server optimiser.
        ledger: Where a round's cost is on disk before it is offered (B-01).
        receipts: Node to the newest receipt of its ledger, from earlier starts.
        schemes: Schemes by name; the simulator passes ones that watch.
    """

    def __init__(
        self,
        plan: RunPlan,
        state: RunState,
        signer: Signer,
        *,
        roster: RosterView,
        server_step: ServerStep,
        ledger: PrivacyLedger,
        receipts: Mapping[NodeId, bytes] | None = None,
        schemes: Mapping[str, Scheme] = SCHEMES,
    ) -> None:
        self._plan, self._signer, self._budget = plan, signer, Budget(plan.privacy, ledger)
        self._run = self._budget.resume(state)
        self._receipts = Receipts(receipts or {})
        self._roster, self._server_step, self._schemes = roster, server_step, schemes
        self._outbox = Outbox(signer, state.run_id)
        self._final: tuple[Body, ...] = ()  # the end of the run, with its model
        self._present, self._epochs = Presence(), Epochs()
        self._awaiting: set[NodeId] = set()  # in CLOSING: who has not said farewell
        self._took_part: set[NodeId] = set()
        self._hellos, self._models = Pace(), Pace()  # the second in CLOSING, to whoever came back
        self._state = State.WAITING
        self._since = self._next_report = self._start_at = 0.0
        self._wall_offset = self._next_tick = 0.0
        self._failures = 0
        self._open: OpenRound | None = None
        self._deadline: float | None = None
        self._outcome = RunOver(complete=True, reason="all rounds done")

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def run(self) -> RunState:
        """What must survive a restart."""
        return self._run

    @property
    def deadline(self) -> float:
        """Time at which to call `on_timeout`, whatever else happens."""
        soonest = self._next_tick
        return soonest if self._deadline is None else min(soonest, self._deadline)

    def start(self, now: float, wall_time: float) -> SessionStep:
        """Begin to wait for nodes; the checkpoint makes the run id durable first."""
        self._wall_offset = wall_time - now
        self._tick(now)
        self._wait(now, self._plan.join_timeout)
        if self._run.finished:
            return self._close(now, complete=True, reason="all rounds done")
        return SessionStep(events=(Checkpoint(self._run),))

    def receive(self, peer: NodeId, frame: bytes, now: float) -> SessionStep:
        """Take a frame of the peer that the transport authenticated."""
        key = self._roster.signing_keys.get(peer)
        if key is None:  # S-09: revoked since it connected
            return SessionStep(events=(PeerRejected(peer, "not an active node of the roster"),))
        try:
            opened = open_envelope(
                frame,
                sender=peer,
                key=key,
                receiver=self._signer.node_id,
                run_id=self._run.run_id,
            )
            return self._dispatch(peer, opened.message, now)
        except RunMismatchError as error:  # signed by the peer: tell it which run this is
            events = (PeerRejected(peer, str(error)),)
            return self._outbox.to(peer, self._welcome(peer, now)) + SessionStep(events=events)
        except RemoteProtocolError as error:  # S-12
            return SessionStep(events=(PeerRejected(peer, str(error)),))

    def unreachable(self, nodes: Iterable[NodeId], now: float) -> SessionStep:
        """Take note that frames could not be delivered: the nodes have missed part of the talk."""
        return self._leave(nodes, "unreachable", now)

    def set_roster(self, roster: RosterView, now: float) -> SessionStep:
        """Take up a newer roster or validity: drop whoever is out (S-09), tell the others."""
        newer = roster.version > self._roster.version
        self._roster = roster
        gone = [node for node in self._present.nodes if node not in roster.signing_keys]
        step = self._leave(gone, "no longer in the roster", now)
        self._awaiting &= set(roster.signing_keys)
        told = self._present.nodes if newer else ()
        return self._outbox.to_all(told, [RosterUpdate(roster.document)]) + step

    def on_timeout(self, now: float) -> SessionStep:
        """Do what the clock says: liveness, the phase's deadline, the start of a round."""
        step = SessionStep()
        if now >= self._next_tick:
            self._tick(now)
            silent = self._present.silent(now, self._plan.liveness)
            step += self._leave(silent, "silent", now)
        if self._state is State.ROUND and self._open is not None:
            if self._deadline is not None and now >= self._deadline:
                step += self._absorb(self._open.role.on_timeout(now), now)
        elif self._state is State.WAITING:
            step += self._maybe_start(now)
        elif self._state is State.CLOSING and (now >= self._start_at or not self._awaiting):
            step += self._over()
        return step

    def interrupt(self, now: float) -> SessionStep:
        """End the run early and tell everybody; the checkpoint stays good for a restart."""
        step = SessionStep()
        if self._open is not None:
            closed = RoundClosed(self._open.offer.round_id, "interrupted", ())
            step = self._outbox.to_all(self._open.offer.cohort, [closed])
        self._outcome = RunOver(complete=False, reason="interrupted")
        del now
        return step + self._over()

    # --- messages ------------------------------------------------------------------------------

    def _dispatch(self, node: NodeId, message: Message, now: float) -> SessionStep:
        """Take a message; one that is not expected raises before anything has changed (S-12)."""
        if isinstance(message, Hello) and message.protocol != PROTOCOL_VERSION:
            raise RemoteProtocolError(node, f"it speaks protocol version {message.protocol}")
        if isinstance(message, RoundMessage):
            return self._on_round_message(node, message, now)
        kept = SessionStep()
        if isinstance(message, Hello | Heartbeat) and message.receipt:
            key = self._roster.signing_keys[node]
            kept = self._receipts.take(node, message.receipt, key)
        if isinstance(message, Hello):
            return kept + self._on_hello(node, message, now)
        if isinstance(message, Probe):
            return self._outbox.to(node, self._welcome(node, now))
        if isinstance(message, Farewell):
            self._awaiting.discard(node)
            step = self._leave([node], "said goodbye", now)
            closed = self._state is State.CLOSING and not self._awaiting
            return step + self._over() if closed else step
        if not isinstance(message, Heartbeat | Refusal):
            raise RemoteProtocolError(node, f"{type(message).__name__} is not for a coordinator")
        step = kept if node in self._present else kept + self._admit(node, now)
        self._present.heard(node, now)
        if isinstance(message, Refusal):
            return step + self._on_refusal(node, message, now)
        return step + self._on_heartbeat(node, message, now)

    def _on_heartbeat(self, node: NodeId, beat: Heartbeat, now: float) -> SessionStep:
        """Stop waiting for a node that lives but is not in the round it was offered (S-11)."""
        if self._open is None or not self._in_round(node):
            return SessionStep()
        had_time = now - self._open.offered_at > self._plan.liveness
        if beat.round_id == self._open.offer.round_id or not had_time:
            return SessionStep()
        self._open.late.add(node)
        return self._drop(node, now)

    def _on_hello(self, node: NodeId, hello: Hello, now: float) -> SessionStep:
        if not self._hellos.due(node, now):
            return SessionStep()  # each answer may carry a roster and a model
        step = SessionStep()
        # A node that restarted has lost the round's secrets. It is forgotten before the round is
        # closed without it, so that the next offer cannot reach it ahead of its welcome.
        if self._present.forget(node) and self._in_round(node):
            step = self._drop(node, now)
        step += self._admit(node, now)
        if hello.roster_version < self._roster.version:
            step += self._outbox.to(node, RosterUpdate(self._roster.document))
        return step + self._maybe_start(now)

    def _admit(self, node: NodeId, now: float) -> SessionStep:
        self._present.admit(node, now)
        step = self._outbox.to(node, self._welcome(node, now))
        if self._state is State.CLOSING:  # it missed the end of the run, or this side restarted
            self._awaiting.add(node)
            if self._models.due(node, now):
                step += self._outbox.to_all([node], self._final)
        return step + SessionStep(events=(Joined(node, self._run.rounds_done),))

    def _welcome(self, node: NodeId, now: float) -> Welcome:
        return welcome(
            self._plan,
            self._run,
            roster_version=self._roster.version,
            wall_time=now + self._wall_offset,
            receipt=self._receipts.of(node),
        )

    def _on_refusal(self, node: NodeId, message: Refusal, now: float) -> SessionStep:
        if self._open is None or message.round_id != self._open.offer.round_id:
            return SessionStep()
        self._open.refused[node] = message.reason
        self._present.missed(node, self._run.next_round)
        event = NodeRefused(node, message.reason, message.explanation)
        return SessionStep(events=(event,)) + self._drop(node, now)

    def _on_round_message(self, node: NodeId, message: RoundMessage, now: float) -> SessionStep:
        if self._open is None or message.round_id != self._open.offer.round_id:
            raise RemoteProtocolError(
                node, f"{type(message).__name__} of round {message.round_id}, which is not open"
            )
        if node not in self._present:  # its next heartbeat counts it in again
            raise RemoteProtocolError(node, f"{type(message).__name__} of a node counted out")
        step = self._absorb(self._open.role.receive(node, message, now), now)
        self._present.heard(node, now)
        return step

    # --- rounds --------------------------------------------------------------------------------

    def _maybe_start(self, now: float) -> SessionStep:
        """Start a round when everybody is here, or when enough are and the wait is over."""
        if self._state is not State.WAITING:
            return SessionStep()
        here, why = self._present.nodes, ""
        members = len(self._roster.signing_keys)
        least = self._plan.least_cohort(members)
        ready = self._present.cohort(self._run.next_round, least)
        cohort, all_asked = self._epochs.cohort(ready, self._plan, members)
        everybody = all_asked and now >= self._since
        if len(cohort) >= least and (everybody or now >= self._start_at):
            epoch = self._epochs.next_terms
            offer = self._budget.next_offer(
                self._plan, self._run, cohort, here, self._roster, epoch
            )
            if not isinstance(offer, NoOffer) or not offer.wait:
                return self._offer_round(offer, now)
            least, why = len(here) + 1, f": {offer.reason}"
        if now - self._since > self._plan.give_up:
            reason = f"only {len(here)} of {least} nodes for {self._plan.give_up:g} s{why}"
            return self._close(now, complete=False, reason=reason)
        if now >= self._next_report and now >= self._start_at:
            self._next_report = now + self._plan.join_timeout
            return SessionStep(events=(WaitingForNodes(tuple(here), least),))
        return SessionStep()

    def _offer_round(self, offer: RoundOffer | NoOffer, now: float) -> SessionStep:
        """Offer the next round, unless there can be none: then the run is over (S-18)."""
        if isinstance(offer, NoOffer):
            self._run = replace(self._run, finished=offer.complete)
            step = SessionStep(events=(Checkpoint(self._run),))
            return step + self._close(now, complete=offer.complete, reason=offer.reason)
        self._budget.charge(self._run.run_id, offer, now + self._wall_offset)
        setup = setup_of(offer, self._run.run_id, self._roster.signing_keys.get)
        self._run = after_offer(self._run, offer)  # S-04
        role = self._schemes[offer.scheme].coordinator(
            setup, weigh=partial(self._weigh, setup) if setup.coordinator_weighs else None
        )
        self._open, self._state = OpenRound(offer, setup, role, offered_at=now), State.ROUND
        messages: list[Message] = [offer, *model_chunks(offer.round_id, self._run.params)]
        started = RoundStarted(
            offer.round_id, self._run.rounds_done, self._plan.rounds, offer.cohort, offer.quorum
        )
        step = SessionStep(events=(Checkpoint(self._run), started))
        step += self._outbox.to_all(offer.cohort, messages)
        return step + self._absorb(role.start(now), now)

    def _weigh(self, setup: RoundSetup, distances: Mapping[NodeId, float]) -> dict[NodeId, int]:
        self._run, weights = weighed(self._run, setup, distances)
        self._round().outliers = {node for node, weight in weights.items() if not weight}
        return weights

    def _absorb(self, step: Step, now: float) -> SessionStep:
        self._deadline = step.deadline
        if self._open is None:
            return SessionStep()
        opened = self._open
        result = self._outbox.of_role(step.send)
        for event in step.events:
            match event:
                case PhaseEntered(phase, waiting):
                    changed = PhaseChanged(opened.offer.round_id, phase, waiting)
                    result += SessionStep(events=(changed,))
                case PeersMissed(_, peers):
                    opened.late |= set(peers)
                case PeerBlamed(peer, reason, certain):
                    if certain:  # it sits out as one that missed the round (S-10)
                        opened.late.add(peer)
                    result += SessionStep(events=(PeerRejected(peer, reason),))
                case SumReady():
                    result += self._finish_round(event, now)
                case RoundFailed(reason, alive, needed):
                    result += self._lose_round(reason, alive, needed, now)
                case _:
                    pass  # a client's events
        return result

    def _finish_round(self, result: SumReady, now: float) -> SessionStep:
        opened, n = self._round(), len(result.contributors)
        offer = opened.offer
        mean = mean_of(result, offer, opened.setup)
        if mean is None:  # S-13, S-20
            why = AbortReason.DROWNED_IN_NOISE if offer.dp else AbortReason.ZERO_WEIGHT
            return self._lose_round(why, n, offer.quorum, now)
        self._run = advanced(self._run, mean, self._server_step, self._plan)
        self._failures = 0
        self._took_part |= set(result.contributors)
        did = (set(result.contributors) | opened.outliers) - opened.late
        self._present.summed(did)
        for node in set(offer.cohort) - did:
            self._present.missed(node, self._run.next_round)
        event = done_event(self._run, self._plan, opened, result, mean, self._budget.spent)
        step = self._end_round(offer, "done", result.contributors, (Checkpoint(self._run), event))
        if self._run.finished:
            return step + self._close(now, complete=True, reason="all rounds done")
        self._wait(now, 0.0)
        return step + self._maybe_start(now)

    def _lose_round(self, reason: AbortReason, alive: int, needed: int, now: float) -> SessionStep:
        opened = self._round()
        offer = opened.offer
        self._failures += 1
        for node in opened.late:
            self._present.missed(node, self._run.next_round)
        events: tuple[SessionEvent, ...] = (RoundLost(offer.round_id, reason, alive, needed),)
        if reason in SPOILT:
            spoiler = self._present.spoilt(offer.cohort, self._run.next_round)
            if spoiler is not None:
                why = "it alone was in every round that failed of late, and may have spoilt them"
                events += (PeerRejected(spoiler, why),)
        elif reason is AbortReason.TOO_FEW_KEYS:
            self._present.stop_searching()
        step = self._end_round(offer, reason, (), events)  # S-07
        if self._failures >= self._plan.max_failures:  # S-07
            why = f"{self._failures} rounds in a row aborted, the last by {reason}"
            refused = sorted(opened.refused.items())
            why += "".join(f"; {node} refused it: {r}" for node, r in refused)
            return step + self._close(now, complete=False, reason=why)
        self._wait(now, _CATCH_UP)
        return step

    def _end_round(
        self,
        offer: RoundOffer,
        outcome: str,
        contributors: tuple[NodeId, ...],
        events: tuple[SessionEvent, ...],
    ) -> SessionStep:
        closed = RoundClosed(offer.round_id, outcome, contributors)
        told = [node for node in offer.cohort if node in self._present]
        self._open = self._deadline = None
        self._epochs.closed(offer, contributors)
        return self._outbox.to_all(told, [closed]) + SessionStep(events=events)

    def _close(self, now: float, *, complete: bool, reason: str) -> SessionStep:
        """Tell everybody, hand out the model of a complete run, and wait for the farewells."""
        self._outcome = RunOver(complete, reason)
        self._state = State.CLOSING
        self._start_at = now + self._plan.farewell_timeout
        # Who took part and is gone may come back for the model; after a restart that is anybody.
        known = self._took_part if self._took_part else set(self._roster.signing_keys)
        self._awaiting = set(self._present.nodes) | (known if complete else set())
        self._final = tuple(Body(message) for message in final_messages(self._plan, self._run))
        step = self._outbox.to_all(self._present.nodes, self._final)
        return step if self._awaiting else step + self._over()

    def _over(self) -> SessionStep:
        if self._state is State.OVER:
            return SessionStep()
        self._state = State.OVER
        return SessionStep(events=(self._outcome,))

    # --- presence ------------------------------------------------------------------------------

    def _leave(self, nodes: Iterable[NodeId], reason: str, now: float) -> SessionStep:
        """Count nodes out, all of them before the round is told of any.

        To drop one may close the round and open the next, which must not be offered to the others.
        """
        left = [node for node in nodes if self._present.forget(node)]
        step = SessionStep(events=tuple(Left(node, reason) for node in left))
        for node in left:
            if self._in_round(node):
                step += self._drop(node, now)
        return step

    def _drop(self, node: NodeId, now: float) -> SessionStep:
        return self._absorb(self._open.role.drop(node, now), now) if self._open else SessionStep()

    def _in_round(self, node: NodeId) -> bool:
        return self._open is not None and node in self._open.offer.cohort

    # --- small parts ---------------------------------------------------------------------------

    def _round(self) -> OpenRound:
        if self._open is None:
            raise LocalProtocolError("no round is open")
        return self._open

    def _wait(self, now: float, at_least: float) -> None:
        """Stay in WAITING; start no sooner than `at_least`, without all no sooner than that too."""
        self._state, self._since = State.WAITING, now
        self._start_at, self._next_report = now + at_least, now
        if at_least == _CATCH_UP:
            self._since = now + _CATCH_UP

    def _tick(self, now: float) -> None:
        self._next_tick = now + min(1.0, self._plan.heartbeat)
