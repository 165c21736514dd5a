"""Where evil nodes and an evil network act: the real machines, joined in memory.

`Federation` runs the real coordinator and the real clients over sealed envelopes. An attack changes
what is sent; the end is judged by comparing numbers, whichever attack was played.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nodes.attacks.knowledge import VALUE_BITS, beats_chance
from nodes.attacks.report import NOTHING, Played
from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.parameters import choose
from secagg.steps import PeerBlamed, RoundFailed, Step, SumReady
from secagg.types import NodeId, RingVector, RoundSetup, Signer
from secagg.wire.envelope import open_envelope, seal_envelope
from secagg.wire.messages import MaskedChunk, Message

__all__ = [
    "COORDINATOR",
    "Federation",
    "Frame",
    "Identity",
    "Move",
    "Tap",
    "draw_inputs",
    "make_setup",
]

COORDINATOR: Final = "coordinator"
_CHUNKS: Final = 4


class Identity:
    """A node's Ed25519 key, or that of an impostor who uses its name."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class Frame:
    """One envelope on its way."""

    source: NodeId
    """Whose connection it comes from."""
    to: NodeId
    data: bytes = field(repr=False)


Move: TypeAlias = Callable[["Federation", Message | None, list[Message]], list[Message]]
"""(round, what the evil node got, what an honest one would now send) -> what it sends."""
Tap: TypeAlias = Callable[["Federation", Message, Frame], list[Frame]]
"""(round, a message, its frame) -> the frames that arrive."""


def make_setup(
    n: int, dim: int, *, neighbours: int | None = None, threshold: int | None = None
) -> tuple[RoundSetup, dict[NodeId, Identity]]:
    """Return a round of `n` nodes with parameters from `choose`, and who signs.

    Args:
        n: Cohort size.
        dim: Coordinates.
        neighbours: Degree of a sparse graph, for cohorts that are too small to get one.
        threshold: The threshold that goes with it.
    """
    width = len(str(n - 1))
    cohort = tuple(f"node-{index:0{width}d}" for index in range(n))
    parties = {node: Identity(node) for node in (*cohort, COORDINATOR)}
    chosen = choose(n)
    setup = RoundSetup(
        run_id=secrets.token_bytes(16),
        round_id=1,
        offer_hash=secrets.token_bytes(32),
        cohort=cohort,
        signing_keys={node: parties[node].public for node in cohort},
        dim=dim,
        ring_bits=ring_bits_for(n, VALUE_BITS),
        threshold=chosen.threshold if threshold is None else threshold,
        quorum=chosen.quorum,
        neighbours=chosen.neighbours if neighbours is None else neighbours,
        colluders=chosen.colluders,
        chunk_values=8 * -(-dim // (8 * _CHUNKS)),
    )
    return setup, parties


def draw_inputs(setup: RoundSetup, seed: int) -> dict[NodeId, RingVector]:
    """Return node to input, uniform in `VALUE_BITS` bits."""
    rng = np.random.default_rng(seed)
    return {
        node: rng.integers(0, 1 << VALUE_BITS, setup.dim, dtype=np.uint32) for node in setup.cohort
    }


class Federation:
    """One round of the real protocol, with an evil node or an evil network in it.

    Args:
        setup: The round.
        parties: Everybody's identity.
        seed: Of the inputs; all secrets come from the operating system.
        evil: The node that `move` acts for.
        move: What the evil node does; None if the network is evil.
        tap: What the network does.
    """

    def __init__(
        self,
        setup: RoundSetup,
        parties: dict[NodeId, Identity],
        *,
        seed: int,
        evil: NodeId | None = None,
        move: Move | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.setup, self.parties, self.evil = setup, parties, evil
        self._move, self._tap = move, tap
        self.inputs = draw_inputs(setup, seed)
        self.clients = {
            node: MaskingClient(
                setup, x, parties[node], coordinator=COORDINATOR, rng=secrets.token_bytes
            )
            for node, x in self.inputs.items()
        }
        self._coordinator = MaskingCoordinator(setup)
        self._queue: deque[Frame] = deque()
        self._now = 0.0
        self._end: SumReady | RoundFailed | None = None
        self._blamed: dict[NodeId, None] = {}
        self._reasons: list[str] = []
        self._captured: list[RingVector] = []

    def seal(
        self, message: Message, signer: Signer, *, to: NodeId, run_id: bytes | None = None
    ) -> bytes:
        """Return the frame of a message, by default of this run."""
        return seal_envelope(message, signer, to=to, run_id=run_id or self.setup.run_id)

    def play(self, elsewhere: str) -> Played:
        """Run the round to its end and judge it; when nothing moves, time passes."""
        self._take(COORDINATOR, self._coordinator.start(self._now))
        for node, client in self.clients.items():
            self._take(node, client.start(self._now))
        while self._end is None:
            if self._queue:
                self._deliver(self._queue.popleft())
            else:
                self._now += self.setup.input_timeout
                self._take(COORDINATOR, self._coordinator.on_timeout(self._now))
        return self._judge(elsewhere)

    def _take(self, source: NodeId, step: Step, received: Message | None = None) -> None:
        send = [(out.to, out.message) for out in step.send]
        if source == self.evil and self._move is not None:
            moved = self._move(self, received, [message for _, message in send])
            send = [(COORDINATOR, message) for message in moved]
        for to, message in send:
            frame = Frame(source, to, self.seal(message, self.parties[source], to=to))
            self._queue.extend(self._tap(self, message, frame) if self._tap else [frame])
        for event in step.events:
            if isinstance(event, PeerBlamed) and source != self.evil:
                self._blame(event.peer, event.reason)
            elif isinstance(event, SumReady | RoundFailed):
                self._end = event

    def _deliver(self, frame: Frame) -> None:
        try:
            message = open_envelope(
                frame.data,
                sender=frame.source,
                key=self.parties[frame.source].public,
                receiver=frame.to,
                run_id=self.setup.run_id,
            ).message
            self._watch(frame.to, message)
            if frame.to == COORDINATOR:
                step = self._coordinator.receive(frame.source, message, self._now)
            else:
                step = self.clients[frame.to].receive(message, self._now)
        except RemoteProtocolError as error:
            if frame.to != self.evil:
                self._blame(error.peer, f"{type(error).__name__}: {error.fault}")
            return
        self._take(frame.to, step, message)

    def _watch(self, to: NodeId, message: Message) -> None:
        """Keep the vectors that the attacker sees: an evil network sees them all."""
        if isinstance(message, MaskedChunk) and (self._tap is not None or to == self.evil):
            part = ring.unpack(message.data, self._chunk_dim(message.index), self.setup.ring_bits)
            if part is not None:
                whole = np.zeros(self.setup.dim, dtype=np.uint32)
                start = message.index * self.setup.chunk_values
                whole[start : start + len(part)] = part
                self._captured.append(whole)

    def _chunk_dim(self, index: int) -> int:
        step = self.setup.chunk_values
        return max(0, min(step, self.setup.dim - index * step))

    def _blame(self, node: NodeId, reason: str) -> None:
        self._blamed[node] = None
        self._reasons.append(reason)

    @property
    def own(self) -> MaskingClient:
        """The evil node's client: what it knows, the attacker knows."""
        if self.evil is None:
            raise LocalProtocolError("no node is evil in this round")
        return self.clients[self.evil]

    # --- what came of it -----------------------------------------------------------------------

    def true_sum(self, nodes: Collection[NodeId]) -> RingVector:
        """Return the sum of the inputs of `nodes`."""
        total = np.zeros(self.setup.dim, dtype=np.uint32)
        for node in nodes:
            total += self.inputs[node]
        return ring.reduce(total, self.setup.ring_bits)

    def _judge(self, elsewhere: str) -> Played:
        wrong, here = False, NOTHING
        if isinstance(self._end, SumReady):
            nodes = self._end.contributors
            wrong = not np.array_equal(self._end.total, self.true_sum(nodes))
            outcome = f"{'wrong' if wrong else 'exact'} sum over {len(nodes)} nodes"
            here = "a wrong sum was released" if wrong else NOTHING
        else:
            outcome = f"abort: {self._end.reason.value}" if self._end else "no end"
        revealed = self._revealed()
        if self._reasons:
            outcome += f" ({self._reasons[0]})"
        return Played(
            elsewhere=elsewhere,
            here=f"input of {revealed[0]} recovered" if revealed else here,
            outcome=outcome,
            blamed=tuple(sorted(self._blamed)),
            revealed=bool(revealed),
            wrong_sum=wrong,
        )

    def _revealed(self) -> list[NodeId]:
        """Return whose input the attacker sees in what it caught and in what was released."""
        guesses = list(self._captured)
        if isinstance(self._end, SumReady):
            total = self._end.total
            guesses.append(total)
            if self.evil in self._end.contributors:
                guesses.append(ring.reduce(total - self.inputs[self.evil], self.setup.ring_bits))
        honest = [node for node in self.setup.cohort if node != self.evil]
        tries = max(1, len(guesses) * len(honest))
        return [
            node
            for node in honest
            if any(
                beats_chance(int(np.count_nonzero(x == guess)), len(guess), tries=tries)
                for x in (self.inputs[node],)
                for guess in guesses
            )
        ]
