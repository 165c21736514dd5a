"""Sums in the clear: the oracle of the contract tests and the yardstick of the benchmarks.

The coordinator reads every input. Daemons refuse it unless coordinator and node both allow
insecure schemes in their configuration.
"""

from __future__ import annotations

import numpy as np

from secagg import ring
from secagg.errors import LocalProtocolError, RemoteProtocolError, ReplayError
from secagg.round_setup import RoundSetup
from secagg.steps import (
    Event,
    InputRejected,
    Outgoing,
    PeerBlamed,
    PhaseEntered,
    RoundFailed,
    Step,
    SumReady,
)
from secagg.types import AbortReason, NodeId, RingVector, Rng, Signer, Weigh
from secagg.wire.messages import Message, PlainChunk

__all__ = ["InsecurePlainClient", "InsecurePlainCoordinator", "InsecurePlainScheme"]


class InsecurePlainClient:
    """Sends its input and is done."""

    def __init__(self, setup: RoundSetup, vector: RingVector, *, coordinator: NodeId) -> None:
        self._setup, self._vector, self._coordinator = setup, vector, coordinator

    def start(self, now: float) -> Step:
        """Send the input in packed chunks."""
        setup, step = self._setup, self._setup.chunk_values
        send = tuple(
            Outgoing(
                self._coordinator,
                PlainChunk(
                    setup.round_id,
                    index,
                    ring.pack(self._vector[index * step : (index + 1) * step], setup.ring_bits),
                ),
            )
            for index in range(setup.n_chunks)
        )
        return Step(send, done=True)

    def receive(self, message: Message, now: float) -> Step:
        """Refuse: the coordinator has nothing to say in this scheme."""
        raise RemoteProtocolError(self._coordinator, f"unexpected {type(message).__name__}")

    def on_timeout(self, now: float) -> Step:
        """Give up."""
        return Step(events=(InputRejected("the coordinator was silent"),), done=True)


class InsecurePlainCoordinator:
    """Adds what arrives until everybody has answered or the deadline passes."""

    def __init__(self, setup: RoundSetup) -> None:
        self._setup = setup
        self._waiting = set(setup.cohort)
        self._chunks: dict[NodeId, list[RingVector]] = {}
        self._contributors: set[NodeId] = set()
        self._total = np.zeros(setup.dim, dtype=np.uint32)
        self._deadline: float | None = None
        self._over = False

    def start(self, now: float) -> Step:
        """Wait for the inputs."""
        if self._deadline is not None:
            raise LocalProtocolError("a coordinator starts once")
        self._deadline = now + self._setup.input_timeout
        return Step(events=(PhaseEntered("input", self._setup.cohort),), deadline=self._deadline)

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        """Fold a chunk in once its sender's upload is complete."""
        if self._deadline is None or self._over or not isinstance(message, PlainChunk):
            raise RemoteProtocolError(sender, f"unexpected {type(message).__name__}")
        if message.round_id != self._setup.round_id or sender in self._contributors:
            raise ReplayError(sender, "a chunk of another round or a second input")
        if sender not in self._waiting:
            raise RemoteProtocolError(sender, "not in the round")
        if message.index < len(self._chunks.get(sender, ())):
            raise ReplayError(sender, f"chunk {message.index} a second time")
        chunks, step = self._chunks.setdefault(sender, []), self._setup.chunk_values
        dim = max(0, min(step, self._setup.dim - len(chunks) * step))
        part = ring.unpack(message.data, dim, self._setup.ring_bits) if dim else None
        if part is None or message.index != len(chunks):
            blamed = PeerBlamed(sender, f"chunk {message.index} is malformed or out of order")
            return self.drop(sender, now, blamed)
        chunks.append(part)
        if len(chunks) == self._setup.n_chunks:
            self._total += np.concatenate(self._chunks.pop(sender))
            self._contributors.add(sender)
            self._waiting.discard(sender)
        return self._advance()

    def drop(self, node: NodeId, now: float, *events: Event) -> Step:
        """Stop waiting for `node`."""
        self._waiting.discard(node)
        self._chunks.pop(node, None)
        return self._advance(*events)

    def on_timeout(self, now: float) -> Step:
        """Close with those who answered."""
        if self._deadline is not None:
            self._waiting.clear()
        return self._advance()

    def _advance(self, *events: Event) -> Step:
        if self._waiting or self._over or self._deadline is None:
            return Step(events=events, deadline=self._deadline, done=self._over)
        self._over = True
        alive, needed = len(self._contributors), self._setup.quorum
        if alive < needed:
            failed = RoundFailed(AbortReason.TOO_FEW_INPUTS, alive, needed)
            return Step(events=(*events, failed), done=True)
        total = ring.reduce(self._total, self._setup.ring_bits)
        names = tuple(sorted(self._contributors))
        result = SumReady(total, names, (1,) * len(names))
        return Step(events=(*events, result), done=True)


class InsecurePlainScheme:
    """See `secagg.roles.Scheme`."""

    name = "insecure-plain"
    private = False

    def check(self) -> None:
        """Do nothing: it needs no more than this package does."""

    def client(
        self,
        setup: RoundSetup,
        vector: RingVector,
        signer: Signer,
        *,
        coordinator: NodeId,
        rng: Rng,
        distance: float | None = None,
    ) -> InsecurePlainClient:
        """Return a client that sends its input in the clear."""
        del signer, rng, distance
        return InsecurePlainClient(setup, vector, coordinator=coordinator)

    def coordinator(
        self, setup: RoundSetup, *, weigh: Weigh | None = None
    ) -> InsecurePlainCoordinator:
        """Return a coordinator that reads every input."""
        del weigh
        return InsecurePlainCoordinator(setup)
