"""The daemons' sessions in one process, on a virtual clock, over encoded bytes.

Nothing of the protocol is simulated: every participant and the coordinator are the state machines
that the daemons run, every message is sealed, encoded, delivered after a delay, opened and decoded.
Only sockets, clocks and the crashes of nodes are played, from one seed. Protocol secrets come from
the operating system as ever; what the seed fixes is who crashes when, and how long things take.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from fl_core.training import LocalUpdate
from nodes.ephemeral import EphemeralIdentity
from nodes.session.coordinator import Coordinator, ServerStep, State
from nodes.session.events import (
    Remember,
    RoundDone,
    RoundLost,
    RoundStarted,
    RunOver,
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
from secagg.roles import ClientRole, CoordinatorRole, Scheme
from secagg.round_setup import RoundSetup
from secagg.schemes import scheme_named
from secagg.steps import Step, SumReady
from secagg.types import NodeId, RingVector, Rng, Signer, Weigh
from secagg.wire.envelope import Envelope, open_envelope
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    KeyAdvert,
    MaskedChunk,
    Message,
    PlainChunk,
    SealedSecret,
    SealedShares,
    SumShare,
    SurvivorSignature,
    UnmaskAnswer,
)

__all__ = ["CRASH_POINTS", "Network", "RoundResult", "SimulatedNode", "Simulation", "Trainer"]

COORDINATOR_ID: Final = "coordinator"
_MAX_EVENTS: Final = 50_000_000

CRASH_POINTS: Final[dict[str, tuple[type[Message], ...]]] = {
    "masking": (KeyAdvert, SealedShares, MaskedChunk, SurvivorSignature, UnmaskAnswer),
    "ckks": (Announcement, SealedSecret, CipherChunk, SurvivorSignature, SumShare),
    "insecure-plain": (PlainChunk,),
}
"""By scheme: a node that crashes in a round dies just before it would send this message."""


class Trainer(Protocol):
    """What a simulated node trains with."""

    def __call__(self, node: NodeId, request: TrainRequested) -> LocalUpdate:
        """Return the node's update for the offered round."""
        ...


@dataclass(frozen=True, slots=True)
class Network:
    """How long things take, in virtual seconds; medians of log-normal draws."""

    latency: float = 0.02
    training: float = 5.0
    spread: float = 0.5
    """Standard deviation of the logarithm."""
    dropout: float = 0.0
    """Probability that a node crashes in a round, at one of `CRASH_POINTS`."""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """One round of a simulation."""

    round_id: int
    outcome: str
    """"done" or the abort reason."""
    cohort: int
    contributors: int
    crashed: tuple[NodeId, ...]
    weights: dict[NodeId, int]
    """What each contributor was multiplied by; empty unless the coordinator weighs."""
    exact: bool | None
    """Whether the opened sum equals, bit for bit, the plain (weighted) sum of the contributors'
    inputs."""
    seconds: float
    """Virtual."""
    upload_bytes: int
    """Mean over the cohort of what a node sent."""
    loss: float | None
    epsilon: float | None
    """What the coordinator's ledger has spent after the round."""


@dataclass(slots=True)
class _Watch:
    """A scheme that lets the simulator compare the opened sum with the plain one."""

    inner: Scheme
    inputs: dict[tuple[int, NodeId], RingVector] = field(default_factory=dict)
    exact: dict[int, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def private(self) -> bool:
        return self.inner.private

    def check(self) -> None:
        self.inner.check()

    def client(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        distance: float | None = None,
        excess: tuple[bytes, ...] = (),
    ) -> ClientRole:
        self.inputs[setup.round_id, signer.node_id] = vector.copy()
        return self.inner.client(
            setup,
            vector,
            signer,
            coordinator=coordinator,
            rng=rng,
            distance=distance,
            excess=excess,
        )

    def coordinator(self, setup: RoundSetup, *, weigh: Weigh | None = None) -> CoordinatorRole:
        return _WatchedCoordinator(self.inner.coordinator(setup, weigh=weigh), setup, self)

    def compare(self, setup: RoundSetup, result: SumReady) -> None:
        plain = np.zeros(setup.dim, dtype=np.uint64)
        for node, weight in zip(result.contributors, result.weights, strict=True):
            plain += np.uint64(weight) * self.inputs[setup.round_id, node]
        same = np.array_equal(plain % (1 << setup.ring_bits), result.total.astype(np.uint64))
        self.exact[setup.round_id] = same
        self.inputs = {key: value for key, value in self.inputs.items() if key[0] > setup.round_id}


class _WatchedCoordinator:
    def __init__(self, inner: CoordinatorRole, setup: RoundSetup, watch: _Watch) -> None:
        self._inner, self._setup, self._watch = inner, setup, watch

    def start(self, now: float) -> Step:
        return self._inner.start(now)

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        return self._seen(self._inner.receive(sender, message, now))

    def drop(self, node: NodeId, now: float) -> Step:
        return self._seen(self._inner.drop(node, now))

    def on_timeout(self, now: float) -> Step:
        return self._seen(self._inner.on_timeout(now))

    def _seen(self, step: Step) -> Step:
        for event in step.events:
            if isinstance(event, SumReady):
                self._watch.compare(self._setup, event)
        return step


@dataclass(slots=True)
class SimulatedNode:
    """A node: its session, its memory on "disk", and whether it is up."""

    identity: EphemeralIdentity
    session: Participant
    journal: AnswerJournal
    """Outlives its restarts, as a file would."""
    ledger: PrivacyLedger
    """As the journal."""
    disk: Remember | None = None
    alive: bool = True
    crash_at: type[Message] | None = None
    sent: int = 0
    life: int = 0
    """Counts restarts, so that what was meant for an earlier life is not delivered."""


class Simulation:
    """One run of `n_nodes` participants.

    Args:
        plan: As for the coordinator daemon.
        state: The run's first state.
        n_nodes: Participants.
        trainer: Makes local updates.
        server_step: The server optimiser.
        network: Delays and crashes.
        seed: Fixes delays and crashes.
    """

    def __init__(
        self,
        plan: RunPlan,
        state: RunState,
        *,
        n_nodes: int,
        trainer: Trainer,
        server_step: ServerStep,
        network: Network,
        seed: int,
    ) -> None:
        self._network, self._trainer = network, trainer
        self._random = np.random.default_rng(seed)
        self._scheme, self._weighs = plan.scheme, plan.weights == "coordinator"
        self._watch = _Watch(scheme_named(plan.scheme))
        self._schemes = {plan.scheme: self._watch}
        self._policy = NodePolicy(
            schemes=(plan.scheme,), collusion=plan.collusion, weights=(plan.weights,)
        )
        self._coordinator_identity = EphemeralIdentity(COORDINATOR_ID)
        names = [f"node-{index:05d}" for index in range(n_nodes)]
        identities = {name: EphemeralIdentity(name) for name in names}
        self._keys = {name: identity.public for name, identity in identities.items()}
        self._armed: dict[NodeId, float] = {}
        self._link_busy: dict[tuple[NodeId, NodeId], float] = {}
        self.nodes: dict[NodeId, SimulatedNode] = {}
        for name, identity in identities.items():
            self.nodes[name] = self._new_node(identity)
        roster = RosterView(1, b"", dict(self._keys))
        self._keys[COORDINATOR_ID] = self._coordinator_identity.public
        self.coordinator = Coordinator(
            plan,
            state,
            self._coordinator_identity,
            roster=roster,
            server_step=server_step,
            ledger=MemoryLedger(),
            schemes=self._schemes,
        )
        self._now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._results: list[RoundResult] = []
        self._round: tuple[RoundStarted, float, Counter[NodeId]] | None = None
        self._crashed: list[NodeId] = []
        self.over: RunOver | None = None

    def run(self) -> Iterator[RoundResult]:
        """Play to the end, yielding each round as it closes."""
        self._from_coordinator(self.coordinator.start(self._now, self._now))
        self._arm_coordinator()
        for name in self.nodes:
            self._boot(name)
        for _ in range(_MAX_EVENTS):
            yield from self._results
            self._results.clear()
            if self.over is not None or self.coordinator.state is State.OVER or not self._queue:
                return
            self._now, _, action = heapq.heappop(self._queue)
            action()

    # --- the virtual network ---------------------------------------------------------------------

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self._now + seconds, next(self._order), action))

    def _carry(self, sender: NodeId, to: NodeId, action: Callable[[], None]) -> None:
        """Deliver after a delay, never before what the same connection carried earlier."""
        arrival = self._now + self._draw(self._network.latency)
        arrival = max(arrival, self._link_busy.get((sender, to), 0.0))
        self._link_busy[sender, to] = arrival
        # The exact time: a sum that rounds down would let a later frame overtake.
        heapq.heappush(self._queue, (arrival, next(self._order), action))

    def _draw(self, median: float) -> float:
        return float(median * np.exp(self._network.spread * self._random.standard_normal()))

    def _from_coordinator(self, step: SessionStep) -> None:
        for event in step.events:
            self._on_coordinator_event(event)
        for to, envelope in step.send:
            node = self.nodes[to]
            self._carry(COORDINATOR_ID, to, self._delivery(node, envelope, node.life))
        self._arm_coordinator()

    def _delivery(self, node: SimulatedNode, envelope: Envelope, life: int) -> Callable[[], None]:
        def deliver() -> None:
            if node.alive and node.life == life:
                self._from_node(node, node.session.receive(bytes(envelope), self._now))

        return deliver

    def _from_node(self, node: SimulatedNode, step: SessionStep) -> None:
        for event in step.events:
            if isinstance(event, Remember):
                node.disk = event
            elif isinstance(event, TrainRequested):
                self._later(self._draw(self._network.training), self._training(node, event))
        name = node.identity.node_id
        for to, envelope in step.send:
            frame = bytes(envelope)
            if not node.alive or self._crashes(node, frame):
                return
            node.sent += len(frame)
            if self._round is not None:
                self._round[2][name] += len(frame)
            self._carry(name, to, self._arrival(name, frame))
        self._arm_node(node)

    def _arrival(self, sender: NodeId, frame: bytes) -> Callable[[], None]:
        return lambda: self._from_coordinator(self.coordinator.receive(sender, frame, self._now))

    def _training(self, node: SimulatedNode, request: TrainRequested) -> Callable[[], None]:
        life = node.life

        def train() -> None:
            if node.alive and node.life == life:
                update = self._trainer(node.identity.node_id, request)
                round_id = request.offer.round_id
                self._from_node(node, node.session.trained(round_id, update, self._now))

        return train

    # --- timers ----------------------------------------------------------------------------------

    def _arm_coordinator(self) -> None:
        due = self.coordinator.deadline

        def fire() -> None:
            if self.coordinator.deadline == due:
                self._from_coordinator(self.coordinator.on_timeout(self._now))

        if due != self._armed.get(COORDINATOR_ID):
            self._armed[COORDINATOR_ID] = due
            self._later(max(0.0, due - self._now), fire)

    def _arm_node(self, node: SimulatedNode) -> None:
        due, life, name = node.session.deadline, node.life, node.identity.node_id

        def fire() -> None:
            if node.alive and node.life == life and node.session.deadline == due:
                self._from_node(node, node.session.on_timeout(self._now))

        if due != self._armed.get(name):
            self._armed[name] = due
            self._later(max(0.0, due - self._now), fire)

    # --- crashes ---------------------------------------------------------------------------------

    def _crashes(self, node: SimulatedNode, frame: bytes) -> bool:
        """Take the node down if this frame is the one it was to die before."""
        if node.crash_at is None:
            return False
        name = node.identity.node_id
        opened = open_envelope(
            frame,
            sender=name,
            key=node.identity.public,
            receiver=COORDINATOR_ID,
            run_id=self.coordinator.run.run_id,
        )
        if not isinstance(opened.message, node.crash_at):
            return False
        node.alive = False
        self._crashed.append(name)
        return True

    def _boot(self, name: NodeId) -> None:
        node = self.nodes[name]
        self._from_node(node, node.session.start(self._now, self._now))

    def _reboot(self, name: NodeId) -> None:
        old = self.nodes[name]
        fresh = self._new_node(old.identity)
        old.session, old.alive, old.crash_at = fresh.session, True, None
        old.life += 1
        self._armed.pop(name, None)
        self._boot(name)

    def _new_node(self, identity: EphemeralIdentity) -> SimulatedNode:
        known = self.nodes.get(identity.node_id)
        journal = known.journal if known else MemoryJournal()
        ledger = known.ledger if known else MemoryLedger()
        session = Participant(
            identity,
            COORDINATOR_ID,
            lambda node: self._keys.get(node),
            policy=self._policy,
            remembered=known.disk.state if known and known.disk else None,
            rng=os.urandom,
            journal=journal,
            ledger=ledger,
            members=lambda: len(self._keys) - 1,
            schemes=self._schemes,
        )
        session.set_roster_version(1)
        return SimulatedNode(identity, session, journal, ledger)

    # --- what happened ---------------------------------------------------------------------------

    def _on_coordinator_event(self, event: SessionEvent) -> None:
        match event:
            case RoundStarted():
                self._round = event, self._now, Counter()
                self._crashed = []
                points = CRASH_POINTS[self._scheme]
                for name in event.cohort:
                    crash = self._random.random() < self._network.dropout
                    point = points[int(self._random.integers(len(points)))]
                    self.nodes[name].crash_at = point if crash else None
            case RoundDone():
                self._close(event.round_id, "done", event)
            case RoundLost():
                self._close(event.round_id, event.reason, None)
            case RunOver():
                self.over = event
            case _:
                pass

    def _close(self, round_id: int, outcome: str, done: RoundDone | None) -> None:
        if self._round is None:
            return
        started, since, sent = self._round
        weights = dict(zip(done.contributors, done.weights, strict=True)) if done else {}
        self._results.append(
            RoundResult(
                round_id,
                outcome,
                len(started.cohort),
                len(weights),
                tuple(sorted(self._crashed)),
                weights if self._weighs else {},
                self._watch.exact.get(round_id),
                self._now - since,
                sent.total() // len(started.cohort),
                done.loss if done else None,
                done.epsilon if done else None,
            )
        )
        self._round = None
        for name in self._crashed:
            self._later(self._draw(1.0), functools.partial(self._reboot, name))
