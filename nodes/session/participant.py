"""A node's side of a run: hello, offers against the policy, one role per round, the final model.

::

    HELLO ─Welcome→ IDLE ─RoundOffer→ LOADING ─ModelChunk…→ TRAINING ─trained()→ AGGREGATING
                     ↑ RoundClosed, a newer offer, a silent coordinator                │
                     └──────────────────────────────────────────────────────────────────┘
    IDLE ─RunFinished→ FETCHING ─ModelChunk…→ FINISHED

No sockets, no clock (S-02), no threads: the daemon and the simulator drive it. Source:
specs/60-session.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from nodes.session.events import (
    Abstained,
    FinalModel,
    Joined,
    OfferRejected,
    OfferSeen,
    ParticipantState,
    PeerRejected,
    Remember,
    RosterOffered,
    RoundEnded,
    RunOver,
    SessionEvent,
    SessionStep,
    TrainRequested,
)
from nodes.session.guard import Guard
from nodes.session.inputs import Contribution, nothing_to_give, to_give
from nodes.session.journal import AnswerJournal
from nodes.session.ledger import PrivacyLedger
from nodes.session.model_transfer import ModelReceiver, from_bytes
from nodes.session.policy import NodePolicy
from secagg.errors import (
    ConfigError,
    LocalProtocolError,
    OfferRefused,
    RemoteProtocolError,
    ReplayError,
)
from secagg.roles import ClientRole, Scheme
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.steps import InputRejected, PeerBlamed, Step, ViewFixed
from secagg.types import NodeId, RefusalReason, Rng, Signer
from secagg.version import PROTOCOL_VERSION, VERSION
from secagg.wire.envelope import NO_RUN, Envelope, open_envelope, seal_envelope
from secagg.wire.messages import (
    Farewell,
    Heartbeat,
    Hello,
    Message,
    ModelChunk,
    Probe,
    Refusal,
    RosterUpdate,
    RoundClosed,
    RoundMessage,
    RoundOffer,
    RunFinished,
    Welcome,
)

if TYPE_CHECKING:
    from fl_core.training import LocalUpdate

__all__ = ["HELLO_INTERVAL", "Participant", "State"]

HELLO_INTERVAL = 2.0  # seconds between hellos until the coordinator answers
SHORTEST_BEAT = 0.02  # seconds between heartbeats, whatever the coordinator asks for
_USUAL_DISTANCE = 1.0  # of standardised embeddings, each coordinate of variance 1
_ANSWERED = (
    "this round was answered before: the state folder was copied or restored, "
    "or two nodes run from it"
)


class State(StrEnum):
    """Where the node is; see the figure above."""

    HELLO = "hello"
    IDLE = "idle"
    LOADING = "loading"
    TRAINING = "training"
    AGGREGATING = "aggregating"
    FETCHING = "fetching"
    FINISHED = "finished"


class Participant:
    """State machine of one node over a run.

    Args:
        signer: This node's identity.
        coordinator: The coordinator's id in the roster.
        signing_key: Active member to Ed25519 key, by the newest roster.
        policy: What this node agrees to.
        remembered: From an earlier start of this node, or None.
        rng: Source of all secrets.
        journal: Where a view is on disk before it is co-signed (S-14).
        ledger: Where a round's cost is on disk before anything of it is sent (B-01).
        members: How many active nodes the newest roster has.
        schemes: Schemes by name; the simulator passes ones that watch.
    """

    def __init__(
        self,
        signer: Signer,
        coordinator: NodeId,
        signing_key: Callable[[NodeId], bytes | None],
        *,
        policy: NodePolicy,
        remembered: ParticipantState | None,
        rng: Rng,
        journal: AnswerJournal,
        ledger: PrivacyLedger,
        members: Callable[[], int],
        schemes: Mapping[str, Scheme] = SCHEMES,
    ) -> None:
        self._signer, self._coordinator, self._signing_key = signer, coordinator, signing_key
        self._rng, self._schemes, self._journal = rng, schemes, journal
        self._memory = remembered or ParticipantState({})
        self._guard = Guard(
            signer.node_id, policy, ledger, signing_key=self._member_key, members=members
        )
        self._guard.previous, self._guard.begun = self._memory.last_sum, self._memory.begun
        self._run_id = NO_RUN
        self._state = State.HELLO
        self._roster_version = 0
        self._heartbeat = HELLO_INTERVAL
        self._next_beat = 0.0
        self._deadline: float | None = None
        self._offer: RoundOffer | None = None
        self._setup: RoundSetup | None = None
        self._final: RunFinished | None = None
        self._receiver: ModelReceiver | None = None
        self._role: ClientRole | None = None

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def deadline(self) -> float:
        """Time at which to call `on_timeout`."""
        return self._next_beat if self._deadline is None else min(self._next_beat, self._deadline)

    def set_roster_version(self, version: int) -> None:
        """Note the version of the roster behind `signing_key`."""
        self._roster_version = version

    def start(self, now: float, wall_time: float) -> SessionStep:
        """Say hello."""
        self._wall_offset = wall_time - now
        return self._beat(now)

    def receive(self, frame: bytes, now: float) -> SessionStep:
        """Take a frame of the coordinator; a bad one costs the round at worst."""
        try:
            key = self._signing_key(self._coordinator) or b""
            opened = open_envelope(
                frame,
                sender=self._coordinator,
                key=key,
                receiver=self._signer.node_id,
                run_id=self._run_id,
            )
            return self._dispatch(opened.message, opened.run_id, now)
        except RemoteProtocolError as error:  # S-12
            return SessionStep(events=(PeerRejected(error.peer, str(error)),))

    def trained(self, round_id: int, update: LocalUpdate, now: float) -> SessionStep:
        """Hand in the result of `TrainRequested`; a result for an older round is ignored."""
        offer, setup = self._offer, self._setup
        if self._state is not State.TRAINING or offer is None or setup is None:
            return SessionStep()
        if offer.round_id != round_id:
            return SessionStep()
        try:
            given = to_give(update, offer, setup, self._rng, self._guard.epoch.share_for(offer))
        except LocalProtocolError as error:
            return self.abstain(round_id, str(error), now)
        return self._contribute(offer, setup, given, max(0.0, update.distance), now)

    def abstain(self, round_id: int, why: str, now: float) -> SessionStep:
        """Give a zero vector of zero weight, noised as any: the data did not yield an update.

        Whether training works out depends on the data, and the coordinator chooses the model it is
        tried on, so even the fact must not show (E-01). Where it weighs the nodes it is told a
        distance that a node might have.
        """
        offer, setup = self._offer, self._setup
        if self._state is not State.TRAINING or offer is None or setup is None:
            return SessionStep()
        if offer.round_id != round_id:
            return SessionStep()
        step = self._give_nothing(offer, setup, now)
        return SessionStep(step.send, (Abstained(round_id, why), *step.events))

    def _give_nothing(self, offer: RoundOffer, setup: RoundSetup, now: float) -> SessionStep:
        share = self._guard.epoch.share_for(offer)
        nothing = nothing_to_give(offer, setup, self._rng, share)
        return self._contribute(offer, setup, nothing, _USUAL_DISTANCE, now)

    def _contribute(
        self,
        offer: RoundOffer,
        setup: RoundSetup,
        given: Contribution,
        distance: float,
        now: float,
    ) -> SessionStep:
        unpaid = self._guard.charge(self._run_id, offer, now + self._wall_offset)
        if unpaid:  # B-01: nothing of this round leaves
            return self.forsake(unpaid)
        self._role = self._schemes[offer.scheme].client(
            setup,
            given.vector,
            self._signer,
            coordinator=self._coordinator,
            rng=self._rng,
            distance=distance if setup.coordinator_weighs else None,  # H-16
            excess=given.excess,
        )
        self._state = State.AGGREGATING
        return self._absorb(self._role.start(now))

    def refuse_training(self, round_id: int, why: str) -> SessionStep:
        """Refuse an offer whose settings cannot be trained on, whatever the data are."""
        if self._offer is None or self._offer.round_id != round_id:
            return SessionStep()
        refused = OfferRefused(RefusalReason.MODEL_UNSUITABLE, why)
        return self._refuse(round_id, refused)

    def forsake(self, why: str) -> SessionStep:
        """Leave the round of the newest offer: its `Remember` could not be stored (S-15)."""
        self._end_round()
        round_id = self._memory.rounds.get(self._run_id, 0)
        return SessionStep(events=(RoundEnded(round_id, why, included=False),))

    def on_timeout(self, now: float) -> SessionStep:
        """Send what is due, and give up a round whose coordinator has gone silent."""
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            if self._role is not None:
                return self._absorb(self._role.on_timeout(now))
            if self._state is State.FETCHING:
                self._end_round()
                return self._hello(now)  # ask for the model again
            if self._state is State.LOADING:
                self._end_round()
        if now >= self._next_beat:
            return self._beat(now)
        return SessionStep()

    def leave(self) -> SessionStep:
        """Say goodbye before shutting down."""
        if self._run_id == NO_RUN:
            return SessionStep()
        round_id = self._offer.round_id if self._offer else 0
        return SessionStep(send=(self._sealed(Farewell(round_id)),))

    # --- messages ------------------------------------------------------------------------------

    def _dispatch(self, message: Message, run_id: bytes, now: float) -> SessionStep:
        if self._run_id == NO_RUN and not isinstance(message, Welcome):
            raise RemoteProtocolError(
                self._coordinator, f"{type(message).__name__} before a welcome"
            )
        match message:
            case Welcome() | RoundOffer() if self._guard.halted:
                return SessionStep()  # B-07: what was on its way when the ledger was found out
            case Welcome():
                return self._on_welcome(message, now)
            case RosterUpdate():
                return SessionStep(events=(RosterOffered(message.document),))
            case Heartbeat():
                return SessionStep()
            case RoundOffer():
                return self._on_offer(message, run_id, now)
            case ModelChunk():
                return self._on_model_chunk(message, now)
            case RoundClosed():
                return self._on_closed(message)
            case RunFinished():
                return self._on_finished(message, now)
            case Hello() | Refusal() | Farewell() | Probe():
                raise RemoteProtocolError(
                    self._coordinator, f"{type(message).__name__} is not for a node"
                )
            case _:
                return self._on_round_message(message, now)

    def _on_welcome(self, message: Welcome, now: float) -> SessionStep:
        self._heartbeat = max(message.heartbeat, SHORTEST_BEAT)
        self._next_beat = now + self._heartbeat
        why = self._guard.set_back(message.receipt, self._signing_key(self._signer.node_id))
        if why:  # B-07: whatever was spent since then is not counted
            self._run_id = message.run
            self._end_round()
            self._state = State.FINISHED
            bye = self._sealed(Farewell(0))
            return SessionStep((bye,), (RunOver(complete=False, reason=why),))
        if self._run_id == message.run:
            return SessionStep()
        self._run_id = message.run
        self._end_round()
        return SessionStep(events=(Joined(self._coordinator, message.rounds_done),))

    def _on_offer(self, offer: RoundOffer, run_id: bytes, now: float) -> SessionStep:
        if offer.round_id <= self._memory.rounds.get(run_id, 0):  # S-05
            raise ReplayError(self._coordinator, f"round {offer.round_id} was offered before")
        self._end_round()
        rounds = {**self._memory.rounds, run_id: offer.round_id}
        self._memory = replace(self._memory, rounds=rounds)
        try:
            self._setup = self._guard.judge(offer, run_id, now + self._wall_offset)
        except OfferRefused as refused:
            step = self._refuse(offer.round_id, refused)
            return SessionStep(step.send, (OfferSeen(offer), Remember(self._memory), *step.events))
        self._memory = replace(self._memory, begun=self._guard.begun)
        self._offer, self._state = offer, State.LOADING
        self._receiver = ModelReceiver(
            offer.round_id, offer.model_dim, offer.model_digest, self._coordinator
        )
        self._deadline = now + offer.input_timeout
        return SessionStep(events=(OfferSeen(offer), Remember(self._memory)))

    def _on_model_chunk(self, chunk: ModelChunk, now: float) -> SessionStep:
        if self._receiver is None:
            if chunk.round_id == self._memory.rounds.get(self._run_id):
                return SessionStep()  # of an offer that this node refused: it was under way
            raise RemoteProtocolError(self._coordinator, "a model chunk without an offer")
        try:
            params = self._receiver.take(chunk)
        except RemoteProtocolError:
            if self._state is State.LOADING:
                self._end_round()  # the next heartbeat shows that this node is not in it
            raise
        if params is None:
            return SessionStep()
        self._receiver = None
        if self._state is State.FETCHING and self._final is not None:
            self._state, self._deadline = State.FINISHED, None
            final = self._final
            event = FinalModel(
                final.training, params, from_bytes(final.reference), final.rounds_done
            )
            return SessionStep((self._sealed(Farewell(final.round_id)),), (event,))
        if self._offer is None or self._setup is None:
            raise LocalProtocolError("a model without an offer")
        if not self._guard.epoch.gives_data(self._offer):  # C-06
            return self._give_nothing(self._offer, self._setup, now)
        self._state = State.TRAINING
        self._deadline = now + self._offer.input_timeout + 3 * self._offer.phase_timeout
        reference = from_bytes(self._offer.reference)
        request = TrainRequested(self._run_id, self._offer, params, reference)
        return SessionStep(events=(request,))

    def _on_closed(self, message: RoundClosed) -> SessionStep:
        if self._offer is None or message.round_id != self._offer.round_id:
            return SessionStep()
        self._end_round()
        included = self._signer.node_id in message.contributors
        receipt = self._guard.new_receipt(self._signer)  # B-07: there may be no further heartbeat
        beat = (self._sealed(Heartbeat(0, self._state.value, receipt)),) if receipt else ()
        return SessionStep(beat, (RoundEnded(message.round_id, message.outcome, included),))

    def _on_finished(self, message: RunFinished, now: float) -> SessionStep:
        if self._state is State.FINISHED:
            return SessionStep(send=(self._sealed(Farewell(message.round_id)),))
        if self._state is State.FETCHING:
            return SessionStep()
        if len(message.reference) % 4:
            raise RemoteProtocolError(self._coordinator, "the final reference is not a vector")
        self._end_round()
        if not message.complete:
            self._state = State.FINISHED
            reason = f"the coordinator ended the run after {message.rounds_done} rounds"
            send = (self._sealed(Farewell(message.round_id)),)
            return SessionStep(send, (RunOver(complete=False, reason=reason),))
        self._final, self._state = message, State.FETCHING
        self._receiver = ModelReceiver(
            message.round_id, message.model_dim, message.model_digest, self._coordinator
        )
        self._deadline = now + 60.0
        return SessionStep()

    def _on_round_message(self, message: RoundMessage, now: float) -> SessionStep:
        if self._role is None or self._offer is None:
            raise RemoteProtocolError(
                self._coordinator, f"{type(message).__name__} while {self._state.value}"
            )
        try:
            return self._absorb(self._role.receive(message, now))
        except RemoteProtocolError as error:
            round_id = self._offer.round_id
            self._end_round()
            events = (
                PeerRejected(error.peer, str(error)),
                RoundEnded(round_id, "left", included=False),
            )
            return SessionStep(events=events)

    # --- small parts ---------------------------------------------------------------------------

    def _absorb(self, step: Step) -> SessionStep:
        self._deadline = step.deadline
        withheld = self._claim(step)
        events: list[SessionEvent] = []
        for event in step.events:
            match event:
                case PeerBlamed(peer, reason):
                    events.append(PeerRejected(peer, reason))
                case ViewFixed(_, nodes) if (
                    not withheld and self._offer is not None and self._signer.node_id in nodes
                ):
                    self._guard.cosigned(self._offer, nodes)
                    self._memory = replace(self._memory, last_sum=nodes)
                    events.append(Remember(self._memory))
                case InputRejected(reason) if self._offer is not None:
                    events.append(RoundEnded(self._offer.round_id, reason, included=False))
                    self._end_round()
                case _:
                    pass  # claimed above, or the coordinator's
        if withheld:
            return SessionStep(events=(*events, *self.forsake(withheld).events))
        return SessionStep(tuple(self._sealed(out.message) for out in step.send), tuple(events))

    def _claim(self, step: Step) -> str:
        """Put a view on disk before it is co-signed; return why it must not be, or "" (S-14)."""
        for event in step.events:
            if not isinstance(event, ViewFixed):
                continue
            if self._offer is None:
                raise LocalProtocolError("a view without an offer")
            similar = self._guard.too_similar(event.contributors)
            if similar:  # G-09
                return similar
            try:
                if not self._journal.claim(self._run_id, self._offer.round_id, event.digest):
                    return _ANSWERED
            except ConfigError as error:  # S-15
                return f"the view is not on disk: {error}; {error.hint}"
        return ""

    def _refuse(self, round_id: int, refused: OfferRefused) -> SessionStep:
        self._end_round()
        explanation = str(refused)[:500]
        message = Refusal(round_id, refused.reason, explanation)
        here = f"{explanation}; {refused.hint}" if refused.hint else explanation
        event = OfferRejected(round_id, refused.reason, here)
        return SessionStep((self._sealed(message),), (event,))

    def _member_key(self, node: NodeId) -> bytes | None:
        """Look up a node of the cohort; the coordinator is none (S-06)."""
        return None if node == self._coordinator else self._signing_key(node)

    def _end_round(self) -> None:
        self._offer = self._setup = self._role = self._receiver = None
        self._deadline = None
        self._state = State.IDLE

    def _beat(self, now: float) -> SessionStep:
        if self._run_id == NO_RUN:
            return self._hello(now)
        self._next_beat = now + self._heartbeat
        round_id = self._offer.round_id if self._offer else 0
        beat = Heartbeat(round_id, self._state.value, self._guard.new_receipt(self._signer))
        return SessionStep(send=(self._sealed(beat),))

    def _hello(self, now: float) -> SessionStep:
        self._next_beat = now + HELLO_INTERVAL
        hello = Hello(
            VERSION,
            PROTOCOL_VERSION,
            self._roster_version,
            now + self._wall_offset,
            self._guard.receipt(self._signer),
        )
        return SessionStep(send=(self._sealed(hello),))

    def _sealed(self, message: Message) -> tuple[NodeId, Envelope]:
        envelope = seal_envelope(message, self._signer, to=self._coordinator, run_id=self._run_id)
        return self._coordinator, envelope

    _wall_offset = 0.0
