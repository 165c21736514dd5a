"""Where evil nodes and an evil network act: the real machines, joined in memory.

`Federation` runs the real coordinator and the real clients over sealed envelopes. An attack changes
what is sent; the end is judged by comparing numbers, whichever attack was played. A gain is an
input that can be read, a wrong sum, a crash, an honest node that loses its place where the rules
say that it does not, blame of one that has nothing to do with it, or memory beyond its bound.
"""

from __future__ import annotations

import secrets
import tracemalloc
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nodes.attacks.knowledge import VALUE_BITS, beats_chance
from nodes.attacks.report import NOTHING, Played
from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.errors import LocalProtocolError, RemoteProtocolError, SecAggError
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.parameters import choose
from secagg.steps import PeerBlamed, PeersMissed, RoundFailed, Step, SumReady
from secagg.types import NodeId, RingVector, RoundSetup, Signer
from secagg.wire.envelope import MAX_ENVELOPE, open_envelope, seal_envelope
from secagg.wire.messages import UPLOAD_SLOTS, MaskedChunk, Message

__all__ = [
    "COORDINATOR",
    "Federation",
    "Frame",
    "Identity",
    "Judge",
    "Move",
    "Tap",
    "draw_inputs",
    "make_setup",
]

COORDINATOR: Final = "coordinator"
_CHUNKS: Final = 4
_CRASHES: Final = (
    SecAggError,
    msgspec.MsgspecError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)
"""What no honest party may raise, whatever it gets; but for `RemoteProtocolError`."""
_T = TypeVar("_T")


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
Judge: TypeAlias = Callable[["Federation", Collection[NodeId]], str]
"""(round, whom the sum holds, nobody if there is none) -> what else was gained; "" if nothing."""


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
        first: Whose frames arrive before those of other nodes; by default the evil node's.
        costs: Honest nodes that may lose their place by this attack; None if all may.
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
        first: NodeId | None = None,
        costs: Collection[NodeId] | None = (),
    ) -> None:
        self.setup, self.parties, self.evil = setup, parties, evil
        self._first = first or evil or COORDINATOR
        self._move, self._tap, self._costs = move, tap, costs
        self.inputs = draw_inputs(setup, seed)
        self.clients = {
            node: MaskingClient(
                setup, x, parties[node], coordinator=COORDINATOR, rng=secrets.token_bytes
            )
            for node, x in self.inputs.items()
        }
        self._coordinator = MaskingCoordinator(setup)
        self.log: list[tuple[NodeId, Message]] = []
        """Every message with its sender, in the order in which they were sent."""
        self.taken: list[tuple[NodeId, Message]] = []
        """Those that the coordinator neither refused nor blamed their sender for."""
        self._lanes: dict[NodeId, deque[Frame]] = {}  # sender -> frames on their way
        self._now = 0.0
        self._end: SumReady | RoundFailed | None = None
        self._blamed: dict[NodeId, None] = {}
        self._reasons: list[str] = []
        self._captured: list[RingVector] = []
        self._left: set[NodeId] = set()  # honest nodes that ended the round for themselves
        self._crash = ""
        self._held: dict[NodeId, int] = {}  # node -> chunks of an unfinished upload
        self._most_held = self._most_copied = 0

    def seal(
        self, message: Message, signer: Signer, *, to: NodeId, run_id: bytes | None = None
    ) -> bytes:
        """Return the frame of a message, by default of this run."""
        return bytes(seal_envelope(message, signer, to=to, run_id=run_id or self.setup.run_id))

    def play(self, elsewhere: str, judge: Judge | None = None) -> Played:
        """Run the round to its end and judge it; when nothing moves, time passes.

        Args:
            elsewhere: What the move gained against the target.
            judge: Finds what only this attack can gain.
        """
        self._take(COORDINATOR, self._coordinator.start(self._now))
        for node, client in self.clients.items():
            self._take(node, client.start(self._now))
        while self._end is None and not self._crash:
            frame = self._next()
            if frame is not None:
                self._deliver(frame)
                continue
            self._now += self.setup.input_timeout
            step = self._asked(COORDINATOR, lambda: self._coordinator.on_timeout(self._now))
            if step is not None:
                self._take(COORDINATOR, step)
        return self._judge(elsewhere, judge)

    def _take(self, source: NodeId, step: Step, received: Message | None = None) -> None:
        send = [(out.to, out.message) for out in step.send]
        if source == self.evil and self._move is not None:
            moved = self._move(self, received, [message for _, message in send])
            send = [(COORDINATOR, message) for message in moved]
        for to, message in send:
            self.log.append((source, message))
            frame = Frame(source, to, self.seal(message, self.parties[source], to=to))
            for each in self._tap(self, message, frame) if self._tap else [frame]:
                self._lanes.setdefault(each.source, deque()).append(each)
        for event in step.events:
            if isinstance(event, PeerBlamed) and source != self.evil:
                self._blame(event.peer, event.reason)
            elif isinstance(event, SumReady | RoundFailed):
                self._end = event
            elif isinstance(event, PeersMissed):
                for node in event.peers:
                    self._held.pop(node, None)

    def _next(self) -> Frame | None:
        """Return what arrives next: the coordinator's, then the first node's, then one of each."""
        for source in (COORDINATOR, self._first, *self._lanes):
            if self._lanes.get(source):
                lane = self._lanes.pop(source)
                self._lanes[source] = lane  # behind the others
                return lane.popleft()
        return None

    def _deliver(self, frame: Frame) -> None:
        message = self._asked(frame.to, lambda: self._open(frame))
        if message is None:
            return
        self._watch(frame.to, message)
        if frame.to == COORDINATOR:
            step = self._asked(
                COORDINATOR, lambda: self._coordinator.receive(frame.source, message, self._now)
            )
            if step is not None:
                self._note_taken(frame.source, message, step)
        else:
            client = self.clients[frame.to]
            step = self._asked(frame.to, lambda: client.receive(message, self._now))
            if step is None:
                self._left.add(frame.to)
        if step is not None:
            self._take(frame.to, step, message)

    def _note_taken(self, sender: NodeId, message: Message, step: Step) -> None:
        """Keep what the coordinator takes, and count the uploads of which it holds a part."""
        if any(isinstance(event, PeerBlamed) and event.peer == sender for event in step.events):
            self._held.pop(sender, None)
            return
        self.taken.append((sender, message))
        if isinstance(message, MaskedChunk):
            self._held[sender] = self._held.get(sender, 0) + 1
            self._most_held = max(self._most_held, len(self._held))
            if self._held[sender] == self.setup.n_chunks:
                del self._held[sender]

    def _asked(self, party: NodeId, do: Callable[[], _T]) -> _T | None:
        """Return what a party gives; None if it refuses or crashes, which is noted."""
        try:
            return do()
        except RemoteProtocolError as error:
            if party != self.evil:
                self._blame(error.peer, f"{type(error).__name__}: {error.fault}")
        except _CRASHES as error:
            if party == self.evil:
                raise
            self._crash = f"{party} crashes: {type(error).__name__}"
            self._reasons.append(str(error))
        return None

    def _open(self, frame: Frame) -> Message:
        """Open a frame; if it is too long for one, see how much memory that takes."""
        oversize = len(frame.data) > MAX_ENVELOPE
        if oversize:
            tracemalloc.start()
        try:
            return open_envelope(
                frame.data,
                sender=frame.source,
                key=self.parties[frame.source].public,
                receiver=frame.to,
                run_id=self.setup.run_id,
            ).message
        finally:
            if oversize:
                self._most_copied = max(self._most_copied, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()

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

    def _judge(self, elsewhere: str, judge: Judge | None) -> Played:
        end, wrong = self._end, ""
        nodes: tuple[NodeId, ...] = ()
        if isinstance(end, SumReady):
            nodes, wrong = end.contributors, self._wrong(end)
            outcome = f"{'wrong' if wrong else 'exact'} sum over {len(nodes)} nodes"
        else:
            outcome = f"abort: {end.reason.value}" if end else self._crash or "no end"
        revealed = self._revealed()
        if self._reasons:
            outcome += f" ({self._reasons[0]})"
        gains = (
            f"input of {revealed[0]} recovered" if revealed else "",
            wrong,
            self._crash,
            judge(self, nodes) if judge else "",
            self._lost(nodes),
            self._framed(),
            self._overspent(),
        )
        here = next((gain for gain in gains if gain), NOTHING)
        return Played(
            elsewhere=elsewhere,
            here=here,
            outcome=outcome,
            blamed=tuple(sorted(self._blamed)),
            revealed=bool(revealed),
            wrong_sum=bool(wrong),
        )

    def _wrong(self, end: SumReady) -> str:
        """Say how the sum differs from that of its contributors; "" if it does not."""
        bits = self.setup.ring_bits
        excess = ring.reduce(end.total - self.true_sum(end.contributors), bits)
        if not excess.any():
            return ""
        if self.evil is not None and np.array_equal(excess, self.inputs[self.evil]):
            return "its input counts twice"
        return "a wrong sum was released"

    def _lost(self, nodes: Collection[NodeId]) -> str:
        """Say how many lost their place: they are not in the sum, or ended the round themselves."""
        if self._costs is None:
            return ""
        lost = (set(self.setup.cohort) - set(nodes)) | self._left
        lost -= {self.evil, *self._costs}
        return f"{len(lost)} honest nodes lost their place" if lost else ""

    def _framed(self) -> str:
        """Name a node that was blamed and did nothing, nor was anything done in its name."""
        framed = sorted(self._blamed.keys() - {self.evil, self._first, COORDINATOR})
        return f"{framed[0]} is blamed, who did nothing" if framed else ""

    def _overspent(self) -> str:
        """Say what memory an honest party spent beyond its bound (M-22, W-02)."""
        if self._most_held > UPLOAD_SLOTS:
            return f"the coordinator held {self._most_held} uploads, {UPLOAD_SLOTS} allowed"
        if self._most_copied > MAX_ENVELOPE:
            return f"{self._most_copied >> 20} MB were copied of a frame that is too long"
        return ""

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
