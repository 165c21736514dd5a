"""A cohort joined to its coordinator in memory: encoded bytes, faults as one function."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secagg.encoding import ring_bits_for
from secagg.errors import RemoteProtocolError
from secagg.masking.parameters import choose
from secagg.roles import ClientRole, Scheme
from secagg.steps import (
    Event,
    PeerBlamed,
    RoundFailed,
    Step,
    SumReady,
)
from secagg.types import (
    NodeId,
    RingVector,
    RoundSetup,
)
from secagg.wire.codec import decode, encode
from secagg.wire.messages import Message
from tests.support.randomness import InsecureLabelledRng

COORDINATOR = "coordinator"
Fault: TypeAlias = Callable[[NodeId, NodeId, Message], list[Message]]
"""(sender, receiver, message) -> what arrives: [] drops it, two entries duplicate it."""


def faithful(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
    return [message]


class TestSigner:
    """An Ed25519 identity whose key follows from its name."""

    __test__ = False

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(node_id.encode()).digest())
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def make_setup(
    n: int = 5, *, dim: int = 100, value_bits: int = 16, **changes: object
) -> RoundSetup:
    """Return a round of `n` nodes with the thresholds that real rounds get, but for `changes`."""
    cohort = tuple(f"node-{index:04d}" for index in range(n))
    chosen = choose(n)
    values: dict[str, object] = {
        "run_id": b"r" * 16,
        "round_id": 7,
        "offer_hash": hashlib.sha256(b"offer").digest(),
        "cohort": cohort,
        "signing_keys": {node: TestSigner(node).public for node in cohort},
        "dim": dim,
        "ring_bits": ring_bits_for(n, value_bits),
        "threshold": chosen.threshold,
        "quorum": chosen.quorum,
        "neighbours": chosen.neighbours,
        "colluders": chosen.colluders,
        "chunk_values": 32,
    }
    return RoundSetup(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class Outcome:
    total: RingVector | None = None
    contributors: tuple[NodeId, ...] = ()
    failed: RoundFailed | None = None
    blamed: set[NodeId] = field(default_factory=set)
    errors: list[RemoteProtocolError] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    seen: list[tuple[NodeId, Message]] = field(default_factory=list)
    """Everything the coordinator received."""


class Fleet:
    """One round of `scheme` over random inputs."""

    def __init__(self, scheme: Scheme, setup: RoundSetup, *, seed: int = 1) -> None:
        self.setup, self.scheme = setup, scheme
        rng = np.random.default_rng(seed)
        top = 1 << setup.ring_bits
        self.inputs = {
            node: rng.integers(0, top, setup.dim, dtype=np.uint64).astype(np.uint32)
            for node in setup.cohort
        }
        self.clients: dict[NodeId, ClientRole] = {
            node: scheme.client(
                setup,
                self.inputs[node],
                TestSigner(node),
                coordinator=COORDINATOR,
                rng=InsecureLabelledRng(seed, node),
            )
            for node in setup.cohort
        }
        self.coordinator = scheme.coordinator(setup)

    def plain_sum(self, nodes: tuple[NodeId, ...] | None = None) -> RingVector:
        """What the round must give over `nodes`, by Python integers."""
        chosen = self.setup.cohort if nodes is None else nodes
        modulus = 1 << self.setup.ring_bits
        columns = zip(*(self.inputs[node].tolist() for node in chosen), strict=True)
        return np.array([sum(column) % modulus for column in columns], dtype=np.uint32)

    def play(self, fault: Fault = faithful) -> Outcome:
        """Run to the end; when nothing moves, time passes."""
        outcome = Outcome()
        queue: deque[tuple[NodeId, NodeId, bytes]] = deque()
        dead: set[NodeId] = set()
        now = 0.0

        def take(step: Step, source: NodeId) -> float | None:
            for out in step.send:
                for message in fault(source, out.to, out.message):
                    queue.append((source, out.to, encode(message)))
            for event in step.events:
                outcome.events.append(event)
                if isinstance(event, SumReady):
                    outcome.total, outcome.contributors = event.total, event.contributors
                elif isinstance(event, RoundFailed):
                    outcome.failed = event
                elif isinstance(event, PeerBlamed):
                    outcome.blamed.add(event.peer)
            return step.deadline

        take(self.coordinator.start(now), COORDINATOR)
        for node, client in self.clients.items():
            take(client.start(now), node)
        for _ in range(100_000):
            if outcome.total is not None or outcome.failed is not None:
                return outcome
            if not queue:
                now += 1000.0
                take(self.coordinator.on_timeout(now), COORDINATOR)
                continue
            sender, receiver, data = queue.popleft()
            message = decode(data, sender=sender)
            try:
                if receiver == COORDINATOR:
                    outcome.seen.append((sender, message))
                    take(self.coordinator.receive(sender, message, now), COORDINATOR)
                elif receiver not in dead:
                    take(self.clients[receiver].receive(message, now), receiver)
            except RemoteProtocolError as error:
                outcome.errors.append(error)
                outcome.blamed.add(error.peer)
                if receiver != COORDINATOR:
                    dead.add(receiver)
        raise AssertionError("the round did not end")
