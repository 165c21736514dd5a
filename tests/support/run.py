"""A coordinator session and participants joined in memory, for tests of the session rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fl_core.training import LocalUpdate
from nodes.session.coordinator import Coordinator, State
from nodes.session.events import (
    ParticipantState,
    Remember,
    RunState,
    SessionEvent,
    SessionStep,
    TrainRequested,
)
from nodes.session.journal import AnswerJournal, MemoryJournal
from nodes.session.ledger import MemoryLedger, PrivacyLedger
from nodes.session.participant import Participant
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy
from nodes.session.presence import RosterView
from secagg.errors import RemoteProtocolError
from secagg.types import NodeId
from secagg.wire.envelope import open_envelope
from secagg.wire.messages import Message
from tests.support.fleet import COORDINATOR, TestSigner
from tests.support.randomness import InsecureLabelledRng

DIM, EMBEDDING = 40, 4
Filter = Callable[[NodeId, NodeId, bytes], list[bytes]]


def make_plan(**changes: object) -> RunPlan:
    values: dict[str, object] = {
        "rounds": 2,
        "min_nodes": 3,
        "training": b"{}",
        "join_timeout": 20.0,
        "input_timeout": 60.0,
        "phase_timeout": 10.0,
    }
    return RunPlan(**{**values, **changes})  # type: ignore[arg-type]


def make_state(**changes: object) -> RunState:
    values: dict[str, object] = {
        "run_id": b"R" * 16,
        "next_round": 1,
        "rounds_done": 0,
        "params": np.zeros(DIM, dtype=np.float32),
        "reference": np.zeros(EMBEDDING, dtype=np.float32),
        "optimiser": {},
    }
    return RunState(**{**values, **changes})  # type: ignore[arg-type]


def add_mean(
    params: NDArray[np.float32], mean: NDArray[np.float64], state: dict[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    return (params + mean).astype(np.float32), state


def constant_update(node: NodeId, request: TrainRequested) -> LocalUpdate:
    """Node i moves every parameter by 0.01·(i + 1), with weight 1/(i + 1)."""
    index = int(node.rsplit("-", 1)[1])
    delta = np.full(len(request.params), 0.01 * (index + 1), dtype=np.float32)
    centroid = np.full(len(request.reference), 0.1 * index, dtype=np.float32)
    return LocalUpdate(delta, centroid, 1.0 / (index + 1), float(index), 2.0, 100)


@dataclass
class Run:
    """`n` participants and a coordinator; `step` moves everything that can move."""

    n: int = 4
    plan: RunPlan = field(default_factory=make_plan)
    state: RunState = field(default_factory=make_state)
    policies: dict[NodeId, NodePolicy] = field(default_factory=dict)
    trainer: Callable[[NodeId, TrainRequested], LocalUpdate] = constant_update
    deliver: Filter = lambda sender, to, frame: [frame]
    journals: dict[NodeId, AnswerJournal] = field(default_factory=dict)
    ledgers: dict[NodeId, PrivacyLedger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = [f"node-{index}" for index in range(self.n)]
        self.signers = {name: TestSigner(name) for name in [*self.names, COORDINATOR]}
        self.keys = {name: signer.public for name, signer in self.signers.items()}
        self.now = 0.0
        self.disk: dict[NodeId, ParticipantState] = {}
        self.events: list[tuple[NodeId, SessionEvent]] = []
        self.queue: deque[tuple[NodeId, NodeId, bytes]] = deque()
        self.down: set[NodeId] = set()
        self.participants: dict[NodeId, Participant] = {}
        self.coordinator = self.make_coordinator(self.state)

    def make_coordinator(self, state: RunState) -> Coordinator:
        return Coordinator(
            self.plan,
            state,
            self.signers[COORDINATOR],
            roster=self.roster(),
            server_step=add_mean,
            ledger=self.ledgers.setdefault(COORDINATOR, MemoryLedger()),
        )

    def roster(self, version: int = 1, *, without: tuple[NodeId, ...] = ()) -> RosterView:
        keys = {name: self.keys[name] for name in self.names if name not in without}
        return RosterView(version, b"roster document", keys)

    def boot(self, *names: NodeId) -> None:
        """Start participants, as a fresh process with the memory of the last."""
        for name in names or self.names:
            self.down.discard(name)
            self.participants[name] = Participant(
                self.signers[name],
                COORDINATOR,
                lambda node: self.keys.get(node),
                policy=self.policies.get(name, NodePolicy()),
                remembered=self.disk.get(name),
                rng=InsecureLabelledRng(len(self.events), name),
                journal=self.journals.setdefault(name, MemoryJournal()),
                ledger=self.ledgers.setdefault(name, MemoryLedger()),
                members=lambda: len(self.coordinator._roster.signing_keys),
            )
            self.participants[name].set_roster_version(1)
            self.take(name, self.participants[name].start(self.now, self.now))

    def take(self, source: NodeId, step: SessionStep) -> None:
        for event in step.events:
            self.events.append((source, event))
            if isinstance(event, Remember):
                self.disk[source] = event.state
        for to, envelope in step.send:
            for copy in self.deliver(source, to, bytes(envelope)):
                self.queue.append((source, to, copy))
        for event in step.events:
            if isinstance(event, TrainRequested) and source not in self.down:
                update = self.trainer(source, event)
                node = self.participants[source]
                self.take(source, node.trained(event.offer.round_id, update, self.now))

    def settle(self) -> None:
        """Deliver until nothing moves."""
        for _ in range(100_000):
            if not self.queue:
                return
            sender, to, frame = self.queue.popleft()
            if to in self.down or sender in self.down:
                continue
            if to == COORDINATOR:
                self.take(to, self.coordinator.receive(sender, frame, self.now))
            elif to in self.participants:
                self.take(to, self.participants[to].receive(frame, self.now))
        raise AssertionError("messages without end")

    def play(self, seconds: float = 300.0) -> None:
        """Let time pass, in the order of deadlines, until the run is over."""
        if self.now == 0.0 and not self.events:
            self.take(COORDINATOR, self.coordinator.start(self.now, self.now))
        end = self.now + seconds
        while self.now < end and self.coordinator.state is not State.OVER:
            self.settle()
            live = {n: p for n, p in self.participants.items() if n not in self.down}
            self.now = min([self.coordinator.deadline, *(p.deadline for p in live.values()), end])
            for name, participant in live.items():
                if participant.deadline <= self.now:
                    self.take(name, participant.on_timeout(self.now))
            self.settle()
            if self.coordinator.deadline <= self.now:
                self.take(COORDINATOR, self.coordinator.on_timeout(self.now))
        self.settle()

    def of(self, kind: type, source: NodeId = COORDINATOR) -> list[SessionEvent]:
        return [event for who, event in self.events if who == source and isinstance(event, kind)]


def message_of(run: Run, frame: bytes, sender: str) -> Message:
    receiver = COORDINATOR if sender != COORDINATOR else ""
    for to in [receiver] if receiver else run.names:
        try:
            return open_envelope(
                frame, sender=sender, key=run.keys[sender], receiver=to, run_id=frame[1:17]
            ).message
        except RemoteProtocolError:
            continue
    raise AssertionError("no receiver can open this frame")
