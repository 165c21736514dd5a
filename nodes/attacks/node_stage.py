"""Where evil nodes and an evil network act: honest parties joined in memory, two of each play.

`Federation` runs the real coordinator and the real clients over sealed envelopes. `TargetRound`
runs the semi-honest target on the same inputs. Both let an attack change what is sent, and both
judge the end by comparing numbers: neither knows which attack was played.
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
from nodes.attacks.semi_honest import BothShares, PublicKeys, TargetNode, TargetServer
from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.errors import LocalProtocolError, RemoteProtocolError, SecAggError
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
    "TargetMove",
    "TargetRound",
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
        total = np.sum([self.inputs[node] for node in nodes], axis=0, dtype=np.uint32)
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


@dataclass(frozen=True, slots=True)
class TargetMove:
    """The analogous move against the semi-honest target; what is not set is honest.

    Attributes:
        keys: What the server gets for the attacked node's keys.
        boxes: What it gets for its sealed shares.
        uploads: What it gets for its upload, one entry each time it gets one.
        answer: What it gets for its answer.
        silent: The attacked node gives no upload and no answer.
        added: A vector that the attacker wants in the sum.
    """

    keys: Callable[[PublicKeys], PublicKeys] = lambda keys: keys
    boxes: Callable[[dict[NodeId, bytes]], dict[NodeId, bytes]] = lambda boxes: boxes
    uploads: Callable[[bytes], list[bytes]] = lambda upload: [upload]
    answer: Callable[[BothShares], BothShares] = lambda answer: answer
    silent: bool = False
    added: RingVector | None = None


class TargetRound:
    """One round of the semi-honest target on the complete graph.

    Args:
        setup: Cohort, size and threshold.
        seed: Of the inputs, as for `Federation`.
        attacked: The node whose messages are not what they should be.
    """

    def __init__(self, setup: RoundSetup, *, seed: int, attacked: NodeId) -> None:
        self.setup, self.attacked = setup, attacked
        self.inputs = draw_inputs(setup, seed)
        self.nodes = {
            node: TargetNode(node, x, bits=setup.ring_bits, rng=secrets.token_bytes)
            for node, x in self.inputs.items()
        }
        self._actor = ""

    def play(self, move: TargetMove) -> str:
        """Run the round; return what the attack gained, from the numbers."""
        try:
            total = self._run(move)
        except (SecAggError, ValueError, KeyError) as error:
            return f"{self._actor} crashes: {type(error).__name__}: {error}"
        return self._judge(total, move)

    def _run(self, move: TargetMove) -> RingVector:
        setup, target, bad = self.setup, self.nodes, self.attacked
        keys = {node: each.advertise() for node, each in target.items()}
        keys[bad] = move.keys(keys[bad])
        points = {node: index for index, node in enumerate(setup.cohort, start=1)}
        boxes = {}
        for node, each in target.items():
            peers = {peer: key for peer, key in keys.items() if peer != node}
            boxes[node] = each.share(peers, points, setup.threshold)
        boxes[bad] = move.boxes(boxes[bad])
        server = TargetServer(keys, dim=setup.dim, bits=setup.ring_bits, threshold=setup.threshold)
        active = [node for node in setup.cohort if node != bad or not move.silent]
        for node in setup.cohort:
            self._actor = node
            upload = target[node].upload({o: sent[node] for o, sent in boxes.items() if o != node})
            self._actor = "the server"
            if node in active:
                for data in move.uploads(upload) if node == bad else [upload]:
                    server.add(data)
        dead = sorted(set(setup.cohort) - set(active))
        answers = {node: target[node].reveal(active, dead) for node in active}
        if bad in answers:
            answers[bad] = move.answer(answers[bad])
        everybody = {node: set(setup.cohort) - {node} for node in setup.cohort}
        return server.unmask(answers, active=active, dead=dead, neighbours=everybody)

    def _judge(self, total: RingVector, move: TargetMove) -> str:
        bits, bad = self.setup.ring_bits, self.attacked
        active = [x for node, x in self.inputs.items() if node != bad or not move.silent]
        true = ring.reduce(np.sum(active, axis=0, dtype=np.uint32), bits)
        excess = ring.reduce(total - true, bits)
        if not excess.any():
            return NOTHING
        if np.array_equal(excess, self.inputs[bad]):
            return "its input counts twice, and nothing tells"
        if move.added is not None and np.array_equal(excess, move.added):
            return "the sum is off by just what the attacker chose, and nothing tells"
        right = float(np.mean(excess == 0))
        how = "noise" if right < 0.5 else "wrong"
        return f"the sum is {how} ({right:.0%} of its coordinates right), and nothing tells"
