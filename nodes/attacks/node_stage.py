"""Where evil nodes and an evil network act: the real machines, joined in memory.

`Federation` runs the real coordinator and the real clients over sealed envelopes. An attack changes
what is sent; an `Observer` sees all of it and judges the end.
"""

from __future__ import annotations

import secrets
import tracemalloc
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from nodes.attacks.base_puppet import COORDINATOR, inputs_for
from nodes.attacks.ckks_setting import completes, weigher
from nodes.attacks.knowledge import VALUE_BITS
from nodes.attacks.observer import Observer
from nodes.attacks.report import Played
from nodes.ephemeral import EphemeralIdentity
from secagg.encoding import ring_bits_for
from secagg.errors import LocalProtocolError, RemoteProtocolError, SecAggError
from secagg.masking.parameters import choose
from secagg.roles import ClientRole, Scheme
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, PeersMissed, RoundFailed, Step, SumReady
from secagg.types import NodeId, Signer
from secagg.wire.envelope import MAX_ENVELOPE, open_envelope, seal_envelope
from secagg.wire.messages import MaskedChunk, Message

__all__ = ["Federation", "Frame", "Judge", "Move", "Tap", "make_setup"]

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
) -> tuple[RoundSetup, dict[NodeId, EphemeralIdentity]]:
    """Return a round of `n` nodes with parameters from `choose`, and who signs.

    Args:
        n: Cohort size.
        dim: Coordinates.
        neighbours: Degree of a sparse graph, for cohorts that are too small to get one.
        threshold: The threshold that goes with it.
    """
    width = len(str(n - 1))
    cohort = tuple(f"node-{index:0{width}d}" for index in range(n))
    parties = {node: EphemeralIdentity(node) for node in (*cohort, COORDINATOR)}
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
        scheme: Whose state machines are played.
    """

    def __init__(
        self,
        setup: RoundSetup,
        parties: dict[NodeId, EphemeralIdentity],
        *,
        seed: int,
        evil: NodeId | None = None,
        move: Move | None = None,
        tap: Tap | None = None,
        first: NodeId | None = None,
        costs: Collection[NodeId] | None = (),
        scheme: Scheme = SCHEMES["masking"],
    ) -> None:
        self.setup, self.parties, self.evil = setup, parties, evil
        self._first = first or evil or COORDINATOR
        self._move, self._tap = move, tap
        self.inputs = inputs_for(setup, seed)
        self.clients: dict[NodeId, ClientRole] = {
            node: scheme.client(
                setup,
                x,
                parties[node],
                coordinator=COORDINATOR,
                rng=secrets.token_bytes,
                distance=1.0 if setup.coordinator_weighs else None,
            )
            for node, x in self.inputs.items()
        }
        self._coordinator = scheme.coordinator(setup, weigh=weigher(setup))
        self.log: list[tuple[NodeId, Message]] = []
        """Every message with its sender, in the order in which they were sent."""
        self.taken: list[tuple[NodeId, Message]] = []
        """Those that the coordinator neither refused nor blamed their sender for."""
        self._lanes: dict[NodeId, deque[Frame]] = {}  # sender -> frames on their way
        self._now = 0.0
        self._observer = Observer(setup, self.inputs, evil=evil, suspect=self._first, costs=costs)

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
        while self._observer.end is None and not self._observer.crash:
            frame = self._next()
            if frame is not None:
                self._deliver(frame)
                continue
            self._now += self.setup.input_timeout
            step = self._asked(COORDINATOR, lambda: self._coordinator.on_timeout(self._now))
            if step is not None:
                self._take(COORDINATOR, step)
        more = judge(self, self._observer.contributors) if judge else ""
        return self._observer.verdict(elsewhere, more)

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
                self._observer.note_blame(event.peer, event.reason, certain=event.certain)
            elif isinstance(event, SumReady | RoundFailed):
                self._observer.end = event
            elif isinstance(event, PeersMissed):
                for node in event.peers:
                    self._observer.note_dropped(node)

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
        if isinstance(message, MaskedChunk) and (self._tap is not None or frame.to == self.evil):
            self._observer.note_seen(message)  # an evil network sees them all
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
                self._observer.left.add(frame.to)
        if step is not None:
            self._take(frame.to, step, message)

    def _note_taken(self, sender: NodeId, message: Message, step: Step) -> None:
        """Keep what the coordinator takes, and count the uploads of which it holds a part."""
        if any(isinstance(event, PeerBlamed) and event.peer == sender for event in step.events):
            self._observer.note_dropped(sender)
            return
        self.taken.append((sender, message))
        whole = completes(self.setup, message)
        if whole is not None:
            self._observer.note_held(sender, whole=whole)

    def _asked(self, party: NodeId, do: Callable[[], _T]) -> _T | None:
        """Return what a party gives; None if it refuses or crashes, which is noted."""
        try:
            return do()
        except RemoteProtocolError as error:
            if party != self.evil:
                self._observer.note_blame(error.peer, f"{type(error).__name__}: {error.fault}")
        except _CRASHES as error:
            if party == self.evil:
                raise
            self._observer.note_crash(party, error)
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
                peak = tracemalloc.get_traced_memory()[1]
                self._observer.copied = max(self._observer.copied, peak)
                tracemalloc.stop()

    @property
    def own(self) -> Any:
        """The evil node's client: what it knows, the attacker knows."""
        if self.evil is None:
            raise LocalProtocolError("no node is evil in this round")
        return self.clients[self.evil]
