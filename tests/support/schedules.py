"""One round in virtual time over a network that loses, delays, repeats and reorders.

Every party reads a clock of its own, that may run fast or slow, and is woken at the deadline it
asked for. What must hold of every round is in `check`.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from secagg.errors import RemoteProtocolError
from secagg.roles import ClientRole, CoordinatorRole
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.steps import Event, PeerBlamed, RoundFailed, Step, SumReady
from secagg.types import AbortReason, NodeId, RingVector
from secagg.wire.codec import decode, encode
from secagg.wire.messages import (
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    SealedShares,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import COORDINATOR, TestSigner
from tests.support.randomness import InsecureLabelledRng

__all__ = [
    "ALIVE",
    "STAGES",
    "Arrival",
    "Network",
    "Round",
    "check",
    "faithful",
    "fates",
    "late",
    "plain_sum",
    "random_inputs",
    "stage_of",
]

Stage: TypeAlias = tuple[type[Message], int]
STAGES: Final[tuple[Stage, ...]] = (
    (KeyAdvert, 0),
    *((Coin, attempt) for attempt in range(1, 5)),
    (Encapsulations, 0),
    (SealedShares, 0),
    (MaskedChunk, 0),
    (MaskedChunk, 1),
    (SurvivorSignature, 0),
    (UnmaskAnswer, 0),
)
"""All that a node sends in a round, in order; on the complete graph without the coins."""
ALIVE: Final = len(STAGES)
"""Stands in a pattern of dropouts for a node that lives."""

Network: TypeAlias = Callable[[NodeId, NodeId, Message], Sequence[float]]
"""(sender, receiver, message) -> after how many seconds it arrives, once for each entry."""
_MAX_EVENTS = 100_000


def stage_of(message: Message) -> int:
    """Return the index in `STAGES` of a node's message."""
    number = 0
    if isinstance(message, MaskedChunk):
        number = min(message.index, 1)
    elif isinstance(message, Coin):
        number = message.attempt
    return STAGES.index((type(message), number))


def faithful(sender: NodeId, receiver: NodeId, message: Message) -> Sequence[float]:
    return (0.0,)


def late(kind: type[Message], nodes: Collection[NodeId], delay: float) -> Network:
    """Return a network that delays every message of one type of `nodes`."""

    def network(sender: NodeId, receiver: NodeId, message: Message) -> Sequence[float]:
        return (delay if sender in nodes and isinstance(message, kind) else 0.0,)

    return network


def fates(plan: Mapping[tuple[NodeId, NodeId, int], Sequence[float]]) -> Network:
    """Return a network in which the k-th message between two parties fares as `plan` says."""
    count: dict[tuple[NodeId, NodeId], int] = {}

    def network(sender: NodeId, receiver: NodeId, message: Message) -> Sequence[float]:
        index = count.get((sender, receiver), 0)
        count[sender, receiver] = index + 1
        return plan.get((sender, receiver, index), (0.0,))

    return network


signer = functools.lru_cache(maxsize=256)(TestSigner)


def random_inputs(setup: RoundSetup, seed: int = 1) -> dict[NodeId, RingVector]:
    """Return an input for each node, uniform over the ring."""
    rng, top = np.random.default_rng(seed), 1 << setup.ring_bits
    draw = rng.integers(0, top, (len(setup.cohort), setup.dim), dtype=np.uint64)
    return dict(zip(setup.cohort, draw.astype(np.uint32), strict=True))


@dataclass(order=True)
class Arrival:
    """A message that is on its way."""

    time: float
    order: int
    sender: NodeId = field(compare=False)
    receiver: NodeId = field(compare=False)
    data: bytes = field(compare=False)
    """An encoded message, or nothing: the news that the sender has died."""


class Round:
    """One masked round with real state machines.

    Args:
        setup: The round.
        inputs: What each node gives; random by default.
        seed: Of the nodes' generators. ML-KEM capsules are fresh in any case.
        network: How messages travel.
        dies: Node to the index of the stage before which it dies.
        announced: Whether the coordinator is told at once that a node died, or finds out at its
            deadline.
        early: Whether a node dies right after its last message, or when the next one is due.
        clocks: Party to the rate of its clock; 1 where it is not named.
    """

    def __init__(
        self,
        setup: RoundSetup,
        *,
        inputs: Mapping[NodeId, RingVector] | None = None,
        seed: int = 1,
        network: Network = faithful,
        dies: Mapping[NodeId, int] | None = None,
        announced: bool = False,
        early: bool = False,
        clocks: Mapping[NodeId, float] | None = None,
    ) -> None:
        scheme = SCHEMES["masking"]
        self.setup, self.network = setup, network
        self.dies, self.announced, self.early = dies or {}, announced, early
        self.clocks = clocks or {}
        self.inputs = random_inputs(setup) if inputs is None else inputs
        self.coordinator: CoordinatorRole = scheme.coordinator(setup)
        self.clients: dict[NodeId, ClientRole] = {
            node: scheme.client(
                setup,
                self.inputs[node],
                signer(node),
                coordinator=COORDINATOR,
                rng=InsecureLabelledRng(seed, node),
            )
            for node in setup.cohort
        }
        self.now, self.started = 0.0, False
        self.ended_at: float | None = None
        self.deadlines: dict[NodeId, float] = {}
        self.flying: list[Arrival] = []
        self.dead: set[NodeId] = set()
        self.over: set[NodeId] = set()
        self.refused: set[NodeId] = set()
        """Nodes whose round ended by what the coordinator sent."""
        self.totals: list[SumReady] = []
        self.failures: list[RoundFailed] = []
        self.errors: list[RemoteProtocolError] = []
        self.events: list[tuple[NodeId, Event]] = []
        self.sent: list[tuple[NodeId, Message]] = []
        self.seen: list[tuple[NodeId, Message]] = []
        """All that nodes sent, and all of that which reached the coordinator."""
        self.pair_seeds: dict[tuple[NodeId, NodeId], bytes] = {}
        """(node, neighbour) to the seed of the mask between them, as the node knows it."""
        self._order = itertools.count()

    @property
    def total(self) -> RingVector | None:
        return self.totals[0].total if self.totals else None

    @property
    def contributors(self) -> tuple[NodeId, ...]:
        return self.totals[0].contributors if self.totals else ()

    @property
    def reason(self) -> AbortReason | None:
        return self.failures[0].reason if self.failures else None

    @property
    def blamed(self) -> set[NodeId]:
        return {event.peer for _, event in self.events if isinstance(event, PeerBlamed)}

    # --- drivers -------------------------------------------------------------------------------

    def start(self) -> Round:
        self.started = True
        self.take(COORDINATOR, self.coordinator.start(self.clock(COORDINATOR)))
        for node, client in self.clients.items():
            self.take(node, client.start(self.clock(node)))
        return self

    def play(self) -> Round:
        """Run until nothing flies and nobody waits, in order of time."""
        if not self.started:
            self.start()
        for _ in range(_MAX_EVENTS):
            party = min(self.deadlines, key=self.wake_time, default=None)
            wake = None if party is None else self.wake_time(party)
            if self.flying and (wake is None or self.flying[0].time <= wake):
                arrival = heapq.heappop(self.flying)
                self.now = max(self.now, arrival.time)
                self.deliver(arrival)
            elif party is not None:
                self.fire(party)
            else:
                return self
        raise AssertionError("the round does not end")

    def walk(self, choices: Sequence[tuple[str, int]]) -> Round:
        """Let `choices` order events regardless of time, then play to the end.

        A choice is what happens next, and to which of those in question: a message is delivered,
        delivered and kept, or lost; a party's deadline passes; a node is said to be gone.
        """
        self.start()
        for action, index in choices:
            if action == "wake":
                parties = sorted(self.deadlines)
                if parties:
                    self.fire(parties[index % len(parties)])
            elif action == "gone":
                nodes = self.setup.cohort
                self.gone(nodes[index % len(nodes)])
            elif self.flying:
                arrival = sorted(self.flying)[index % len(self.flying)]
                if action == "repeat":
                    self.deliver(arrival)
                elif action == "lose":
                    self._land(arrival)
                else:
                    self.arrive(arrival)
        return self.play()

    # --- what can happen -----------------------------------------------------------------------

    def arrive(self, arrival: Arrival) -> None:
        """Deliver this one next, whatever its time."""
        self._land(arrival)
        self.deliver(arrival)

    def _land(self, arrival: Arrival) -> None:
        self.flying.remove(arrival)
        heapq.heapify(self.flying)

    def clock(self, party: NodeId) -> float:
        """Return what the party's clock shows."""
        return self.now * self.clocks.get(party, 1.0)

    def wake_time(self, party: NodeId) -> float:
        return self.deadlines[party] / self.clocks.get(party, 1.0)

    def fire(self, party: NodeId) -> None:
        """Let time pass until the deadline that `party` asked for, and wake it."""
        self.now = max(self.now, self.wake_time(party))
        moment = max(self.clock(party), self.deadlines.pop(party))
        role = self.coordinator if party == COORDINATOR else self.clients[party]
        self.take(party, role.on_timeout(moment))

    def gone(self, node: NodeId) -> None:
        """Tell the coordinator that a node has left."""
        self.take(COORDINATOR, self.coordinator.drop(node, self.clock(COORDINATOR)))

    def deliver(self, arrival: Arrival) -> None:
        receiver, sender = arrival.receiver, arrival.sender
        if not arrival.data:
            self.gone(sender)
            return
        if receiver in self.dead:
            return
        message = decode(arrival.data, sender=sender)
        now = self.clock(receiver)
        try:
            if receiver == COORDINATOR:
                self.seen.append((sender, message))
                step = self.coordinator.receive(sender, message, now)
            else:
                self._note_pairs(receiver)
                step = self.clients[receiver].receive(message, now)
        except RemoteProtocolError as error:
            self.errors.append(error)
            if receiver != COORDINATOR:  # its round is over
                if receiver not in self.over:
                    self.refused.add(receiver)
                self.over.add(receiver)
                self.deadlines.pop(receiver, None)
            return
        self.take(receiver, step)

    def take(self, party: NodeId, step: Step) -> None:
        """Send what a party says, and note what it reports."""
        self.deadlines.pop(party, None)
        if step.done:
            self.over.add(party)
            if party == COORDINATOR:
                self.ended_at = self.now
        else:
            assert step.deadline is not None, f"{party} would wait for ever"
            self.deadlines[party] = step.deadline
        for event in step.events:
            self.events.append((party, event))
            if isinstance(event, SumReady):
                self.totals.append(event)
            elif isinstance(event, RoundFailed):
                self.failures.append(event)
        for out in step.send:
            if party != COORDINATOR and not self._lives(party, out.message):
                return
            self._send(party, out.to, out.message)
        due = self.dies.get(party, ALIVE)
        if self.early and step.send and due < ALIVE and due == self._after(step.send[-1].message):
            self._die(party)

    def _after(self, message: Message) -> int:
        """Return the stage that follows that of a node's message."""
        sparse = self.setup.neighbours < len(self.setup.cohort) - 1
        if isinstance(message, KeyAdvert) and not sparse:
            return STAGES.index((Encapsulations, 0))
        return stage_of(message) + 1

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        if sender != COORDINATOR:
            self.sent.append((sender, message))
        data = encode(message)
        for delay in self.network(sender, receiver, message):
            time = self.now + delay
            heapq.heappush(self.flying, Arrival(time, next(self._order), sender, receiver, data))

    def _lives(self, node: NodeId, message: Message) -> bool:
        if node not in self.dead and stage_of(message) < self.dies.get(node, ALIVE):
            return True
        if node not in self.dead:
            self._die(node)
        return False

    def _die(self, node: NodeId) -> None:
        self.dead.add(node)
        self.deadlines.pop(node, None)
        if self.announced:  # after what the node had sent before
            news = Arrival(self.now, next(self._order), node, COORDINATOR, b"")
            heapq.heappush(self.flying, news)

    def _note_pairs(self, node: NodeId) -> None:
        for peer, secret in self.clients[node]._pairs.items():  # type: ignore[attr-defined]
            self.pair_seeds[node, peer] = secret.mask_seed


def plain_sum(round_: Round, nodes: Sequence[NodeId]) -> RingVector:
    """Return what the round must give over `nodes`, in 64-bit integers."""
    total = np.zeros(round_.setup.dim, dtype=np.uint64)
    for node in nodes:
        total += round_.inputs[node]
    return (total % np.uint64(1 << round_.setup.ring_bits)).astype(np.uint32)


def check(round_: Round) -> None:
    """Check what must hold after any round of honest parties, whatever the network did.

    One end; a sum is exact over a quorum, and that of exactly those it names; a failure has a
    typed reason; every machine is over; nobody answered twice; and of no node both secrets came
    out.
    """
    setup = round_.setup
    assert len(round_.totals) + len(round_.failures) == 1
    if round_.total is not None:
        named = round_.contributors
        assert list(named) == sorted(set(named))
        assert set(named) <= set(setup.cohort)
        assert len(named) >= setup.quorum
        assert np.array_equal(round_.total, plain_sum(round_, named)), "the sum is not exact"
    else:
        assert round_.reason in set(AbortReason)
    assert round_.over | round_.dead >= {COORDINATOR, *setup.cohort}
    assert round_.coordinator.phase == "over"  # type: ignore[attr-defined]
    assert not round_.coordinator._uploads._chunks  # type: ignore[attr-defined]
    for node, client in round_.clients.items():
        assert node in round_.dead or client.phase == "over"  # type: ignore[attr-defined]
    answers = [(node, m) for node, m in round_.sent if isinstance(m, UnmaskAnswer)]
    assert len(answers) == len({node for node, _ in answers})
    revealed: dict[tuple[str, NodeId], set[NodeId]] = {}
    for holder, answer in answers:
        for kind, shares in (("self", answer.self_shares), ("key", answer.key_shares)):
            for owner, _ in shares:
                revealed.setdefault((kind, owner), set()).add(holder)
    for node in setup.cohort:
        both = [len(revealed.get((kind, node), ())) for kind in ("self", "key")]
        assert min(both) < setup.threshold, f"both secrets of {node} came out"
        assert min(both) == 0, f"shares of both secrets of {node} came out"
