"""A cohort joined to its coordinator in memory: encoded bytes, faults as one function."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secagg.ckks import parameters as ckks_parameters
from secagg.encoding import ring_bits_for
from secagg.errors import RemoteProtocolError
from secagg.masking.parameters import choose
from secagg.roles import ClientRole, Scheme
from secagg.round_setup import RoundSetup
from secagg.steps import (
    Event,
    PeerBlamed,
    RoundFailed,
    Step,
    SumReady,
)
from secagg.types import NodeId, RingVector, Weigh
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


def with_ckks_terms(
    setup: RoundSetup, *, value_bits: int | None = None, max_weight: int = 1, weighs: bool = False
) -> RoundSetup:
    """Return `setup` as a round of `ckks` of the same quorum, against as many that collude.

    Args:
        setup: Without terms of ckks.
        value_bits: By default those of the ring, as far as ckks carries them.
        max_weight: Greatest weight.
        weighs: Whether the coordinator weighs.
    """
    n = len(setup.cohort)
    terms = ckks_parameters.choose(
        n,
        value_bits=min(24, setup.ring_bits) if value_bits is None else value_bits,
        max_weight=max_weight,
        dropout=(n - setup.quorum) / n,
        collusion=setup.colluders / n,
    )
    assert (terms.quorum, terms.colluders) == (setup.quorum, setup.colluders)
    return replace(setup, ckks=terms, coordinator_weighs=weighs)


def as_inputs(setup: RoundSetup, signed: Mapping[NodeId, object]) -> dict[NodeId, RingVector]:
    """Return vectors of signed integers, or one for all values, modulo 2^ring_bits."""
    mask = np.int64((1 << setup.ring_bits) - 1)
    return {
        node: np.broadcast_to(np.asarray(values, np.int64) & mask, setup.dim).astype(np.uint32)
        for node, values in signed.items()
    }


@dataclass
class Outcome:
    total: RingVector | None = None
    contributors: tuple[NodeId, ...] = ()
    excess: Mapping[NodeId, tuple[bytes, ...]] = field(default_factory=dict)
    weights: tuple[int, ...] = ()
    failed: RoundFailed | None = None
    blamed: set[NodeId] = field(default_factory=set)
    errors: list[RemoteProtocolError] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    seen: list[tuple[NodeId, Message]] = field(default_factory=list)
    """Everything the coordinator received."""


class Fleet:
    """One round of `scheme` over random inputs.

    Args:
        scheme: Which; for ckks `setup` gets terms of it where it has none, see `self.setup`.
        setup: The round.
        seed: Of the inputs, the nodes' randomness and the distances.
        inputs: Other inputs than random ones.
        weigh: For a coordinator that weighs; weights 1 to `max_weight` in turn by default.
    """

    def __init__(
        self,
        scheme: Scheme,
        setup: RoundSetup,
        *,
        seed: int = 1,
        inputs: Mapping[NodeId, RingVector] | None = None,
        weigh: Weigh | None = None,
    ) -> None:
        if scheme.name == "ckks" and setup.ckks is None:
            setup = with_ckks_terms(setup)
        self.setup, self.scheme, self.seed = setup, scheme, seed
        rng = np.random.default_rng(seed)
        self.inputs = {node: self._random_input(rng) for node in setup.cohort}
        self.inputs.update(inputs or {})
        self.excess = {node: self.seeds_of(node) for node in setup.cohort}
        self.distances = {node: float(rng.gamma(2.0)) for node in setup.cohort}
        self.clients: dict[NodeId, ClientRole] = {node: self.client(node) for node in setup.cohort}
        self.weigh = self._in_turn if weigh is None else weigh
        self.coordinator = scheme.coordinator(
            setup, weigh=self.weigh if setup.coordinator_weighs else None
        )

    def _random_input(self, rng: np.random.Generator) -> RingVector:
        """Draw from the whole ring, or from all that ckks carries."""
        setup = self.setup
        if setup.ckks is None:
            return rng.integers(0, 1 << setup.ring_bits, setup.dim).astype(np.uint32)
        half = 1 << (setup.ckks.value_bits - 1)
        values = rng.integers(-half, half, setup.dim)
        return (values & np.int64((1 << setup.ring_bits) - 1)).astype(np.uint32)

    def _in_turn(self, distances: Mapping[NodeId, float]) -> dict[NodeId, int]:
        most = 1 if self.setup.ckks is None else self.setup.ckks.max_weight
        return {node: 1 + index % most for index, node in enumerate(sorted(distances))}

    def client(self, node: NodeId) -> ClientRole:
        """Return a fresh role of `node`."""
        return self.scheme.client(
            self.setup,
            self.inputs[node],
            TestSigner(node),
            coordinator=COORDINATOR,
            rng=InsecureLabelledRng(self.seed, node),
            distance=self.distances[node] if self.setup.coordinator_weighs else None,
            excess=self.excess[node],
        )

    def seeds_of(self, node: NodeId) -> tuple[bytes, ...]:
        """Return the seeds of a node's noise, one for each level but the first."""
        levels = range(1, len(self.setup.noise_levels))
        return tuple(InsecureLabelledRng(self.seed, f"{node} {level}")(32) for level in levels)

    def plain_sum(
        self, nodes: tuple[NodeId, ...] | None = None, weights: tuple[int, ...] | None = None
    ) -> RingVector:
        """What the round must give over `nodes`, by Python integers."""
        chosen = self.setup.cohort if nodes is None else nodes
        factors = weights or (1,) * len(chosen)
        modulus = 1 << self.setup.ring_bits
        columns = zip(*(self.inputs[node].tolist() for node in chosen), strict=True)
        sums = [sum(w * x for w, x in zip(factors, column, strict=True)) for column in columns]
        return np.array([total % modulus for total in sums], dtype=np.uint32)

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
                    outcome.weights, outcome.excess = event.weights, event.excess
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
