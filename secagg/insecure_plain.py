"""Sums in the clear: the oracle of the contract tests and the yardstick of the benchmarks.

The coordinator reads every input. Daemons refuse it unless coordinator and node both allow
insecure schemes in their configuration.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secagg import ring
from secagg.dp.levels import check_seeds, excess_count, level_for
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
from secagg.wire.messages import ExcessRequest, ExcessSeeds, Message, PlainChunk

__all__ = ["InsecurePlainClient", "InsecurePlainCoordinator", "InsecurePlainScheme"]


class InsecurePlainClient:
    """Sends its input, then what the coordinator says is too much of its noise, and is done."""

    def __init__(
        self,
        setup: RoundSetup,
        vector: RingVector,
        *,
        coordinator: NodeId,
        excess: tuple[bytes, ...] = (),
    ) -> None:
        check_seeds(excess, setup.noise_levels)
        self._setup, self._vector, self._coordinator = setup, vector, coordinator
        self._excess = excess

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
        if not self._excess:
            return Step(send, done=True)
        return Step(send, deadline=now + setup.input_timeout + 3 * setup.phase_timeout)

    def receive(self, message: Message, now: float) -> Step:
        """Give back excess noise, once; the coordinator has nothing else to say in this scheme."""
        setup, excess, self._excess = self._setup, self._excess, ()
        if not excess or not isinstance(message, ExcessRequest):
            raise RemoteProtocolError(self._coordinator, f"unexpected {type(message).__name__}")
        n = len(setup.cohort)
        if message.round_id != setup.round_id or not setup.quorum <= message.contributors <= n:
            raise RemoteProtocolError(
                self._coordinator,
                f"{message.contributors} contributors in round {message.round_id}",
            )
        seeds = excess[level_for(n - message.contributors, setup.noise_levels) :]
        answer = ExcessSeeds(setup.round_id, seeds)
        return Step((Outgoing(self._coordinator, answer),), done=True)

    def on_timeout(self, now: float) -> Step:
        """Give up."""
        if self._excess:
            self._excess = ()  # its input may well be in the sum, with all its noise
            return Step(done=True)
        return Step(events=(InputRejected("the coordinator was silent"),), done=True)


class InsecurePlainCoordinator:
    """Adds what arrives until everybody has answered or the deadline passes."""

    def __init__(self, setup: RoundSetup) -> None:
        self._setup = setup
        self._waiting = set(setup.cohort)
        self._chunks: dict[NodeId, list[RingVector]] = {}
        self._contributors: set[NodeId] = set()
        self._total = np.zeros(setup.dim, dtype=np.uint32)
        self._gone: set[NodeId] = set()
        self._deadline: float | None = None
        self._result: SumReady | None = None  # until the excess is in
        self._excess: dict[NodeId, tuple[bytes, ...]] = {}
        self._over = False

    def start(self, now: float) -> Step:
        """Wait for the inputs."""
        if self._deadline is not None:
            raise LocalProtocolError("a coordinator starts once")
        self._deadline = now + self._setup.input_timeout
        return Step(events=(PhaseEntered("input", self._setup.cohort),), deadline=self._deadline)

    def receive(self, sender: NodeId, message: Message, now: float) -> Step:
        """Fold a chunk in once its sender's upload is complete, or take seeds after the sum."""
        due = PlainChunk if self._result is None else ExcessSeeds
        if self._deadline is None or self._over or not isinstance(message, due):
            raise RemoteProtocolError(sender, f"unexpected {type(message).__name__}")
        given = self._contributors if self._result is None else self._excess
        if message.round_id != self._setup.round_id or sender in given:
            raise ReplayError(sender, f"a {due.__name__} of another round, or one too many")
        if sender not in self._waiting:
            raise RemoteProtocolError(sender, "not in the round")
        if isinstance(message, ExcessSeeds):
            return self._on_seeds(sender, message, now)
        return self._on_chunk(sender, message, now)

    def _on_chunk(self, sender: NodeId, message: PlainChunk, now: float) -> Step:
        if message.index < len(self._chunks.get(sender, ())):
            raise ReplayError(sender, f"chunk {message.index} a second time")
        chunks, step = self._chunks.setdefault(sender, []), self._setup.chunk_values
        dim = max(0, min(step, self._setup.dim - len(chunks) * step))
        part = ring.unpack(message.data, dim, self._setup.ring_bits) if dim else None
        if part is None or message.index != len(chunks):
            blamed = PeerBlamed(sender, f"chunk {message.index} is malformed or out of order")
            return self._leave_out(sender, now, blamed)
        chunks.append(part)
        if len(chunks) == self._setup.n_chunks:
            self._total += np.concatenate(self._chunks.pop(sender))
            self._contributors.add(sender)
            self._waiting.discard(sender)
        return self._advance(now)

    def _on_seeds(self, sender: NodeId, message: ExcessSeeds, now: float) -> Step:
        if len(message.seeds) != self._excess_due:
            blamed = PeerBlamed(sender, "it gives other seeds of its noise than it was asked for")
            return self._leave_out(sender, now, blamed)
        self._excess[sender] = message.seeds
        self._waiting.discard(sender)
        return self._advance(now)

    def drop(self, node: NodeId, now: float) -> Step:
        """Stop waiting for `node`."""
        self._gone.add(node)
        return self._leave_out(node, now)

    def _leave_out(self, node: NodeId, now: float, *events: Event) -> Step:
        self._waiting.discard(node)
        self._chunks.pop(node, None)
        return self._advance(now, *events)

    def on_timeout(self, now: float) -> Step:
        """Close with those who answered."""
        if self._deadline is not None:
            self._waiting.clear()
        return self._advance(now)

    def _advance(self, now: float, *events: Event) -> Step:
        if self._waiting or self._over or self._deadline is None:
            return Step(events=events, deadline=self._deadline, done=self._over)
        if self._result is None:
            return self._close_input(now, *events)
        self._over = True
        return Step(events=(*events, replace(self._result, excess=self._excess)), done=True)

    def _close_input(self, now: float, *events: Event) -> Step:
        alive, needed = len(self._contributors), self._setup.quorum
        if alive < needed:
            self._over = True
            failed = RoundFailed(AbortReason.TOO_FEW_INPUTS, alive, needed)
            return Step(events=(*events, failed), done=True)
        total = ring.reduce(self._total, self._setup.ring_bits)
        names = tuple(sorted(self._contributors))
        self._result = SumReady(total, names, (1,) * len(names))
        if not self._excess_due:
            return self._advance(now, *events)
        asked = tuple(node for node in names if node not in self._gone)
        self._waiting, self._deadline = set(asked), now + self._setup.phase_timeout
        request = ExcessRequest(self._setup.round_id, alive, ())
        entered = self._advance(now, *events, PhaseEntered("excess", asked))
        send = tuple(Outgoing(node, request) for node in asked)
        return Step(send, entered.events, entered.deadline, entered.done)

    @property
    def _excess_due(self) -> int:
        """How many components of each node's noise are too many."""
        dropouts = len(self._setup.cohort) - len(self._contributors)
        return excess_count(dropouts, self._setup.noise_levels)


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
        excess: tuple[bytes, ...] = (),
    ) -> InsecurePlainClient:
        """Return a client that sends its input in the clear."""
        del signer, rng, distance
        return InsecurePlainClient(setup, vector, coordinator=coordinator, excess=excess)

    def coordinator(
        self, setup: RoundSetup, *, weigh: Weigh | None = None
    ) -> InsecurePlainCoordinator:
        """Return a coordinator that reads every input."""
        del weigh
        return InsecurePlainCoordinator(setup)
