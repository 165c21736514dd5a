"""One round of a scheme in this process, with every node's and the coordinator's CPU time apart.

The real state machines exchange encoded messages in memory. Sockets, envelopes and local training
are left out; `bench/sockets.py` measures a round with all of them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.common import BenchError
from secagg import ring
from secagg.ckks.weighting import least_effective, weights_from
from secagg.encoding import ring_bits_for
from secagg.masking.masks import Mask, apply_masks
from secagg.masking.parameters import MaskingParameters
from secagg.roles import ClientRole, Scheme
from secagg.round_setup import RoundSetup
from secagg.schemes import MaskingScheme
from secagg.steps import Outgoing, RoundFailed, Step, SumReady
from secagg.types import NodeId, RingVector
from secagg.wire.codec import decode, encode
from secagg.wire.messages import MaskedChunk, Message

__all__ = ["Cost", "Identity", "make_setup", "play"]

COORDINATOR = "coordinator"
CHUNK_VALUES = 131_072
"""The largest that fits a message at any ring size."""
VALUE_BITS = 16
"""Of the values that nodes upload."""


class Identity:
    """An Ed25519 identity whose key follows from its name: for measurements only."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(node_id.encode()).digest())
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(message)


def make_setup(n: int, dim: int, parameters: MaskingParameters, *, value_bits: int) -> RoundSetup:
    """Return the set-up of a masked round of `n` nodes with vectors of `dim` values."""
    cohort = tuple(f"node-{index:04d}" for index in range(n))
    return RoundSetup(
        run_id=b"r" * 16,
        round_id=1,
        offer_hash=hashlib.sha256(b"bench").digest(),
        cohort=cohort,
        signing_keys={node: Identity(node).public for node in cohort},
        dim=dim,
        ring_bits=ring_bits_for(n, value_bits),
        threshold=parameters.threshold,
        quorum=parameters.quorum,
        neighbours=parameters.neighbours,
        colluders=parameters.colluders,
        chunk_values=CHUNK_VALUES,
    )


@dataclass
class Cost:
    """What one round took; CPU seconds and bytes of encoded messages.

    A phase is named by the message that begins it, a node's first by `start`.

    Attributes:
        client_s: Phase to the seconds of each node that finished, in the order in which they came.
        client_codec_s: The same of decoding and encoding their messages, not in `client_s`.
        client_made_s: Of each node, making its role: it checks and copies or encodes its input.
        server_made_s: The same of the coordinator, which is in no other figure either.
        server_of: Message type to the coordinator's seconds over all messages of that type, what
            they set off included.
        codec_of: The same of decoding those messages and encoding what followed.
        recovery_s: Of `server_s`, removing the masks at the end.
        masks: Masks that were removed.
        sent: Node to message type to bytes.
        received: The same of what the coordinator sent it.
        exact: Whether the sum is that of the inputs, bit for bit.
        error: Greatest difference between the two, as signed integers.
        survivors: Whose inputs it holds.
    """

    client_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    client_codec_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    client_made_s: list[float] = field(default_factory=list)
    server_made_s: float = 0.0
    server_of: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    codec_of: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    recovery_s: float = 0.0
    masks: int = 0
    sent: dict[NodeId, dict[str, int]] = field(default_factory=lambda: defaultdict(_counter))
    received: dict[NodeId, dict[str, int]] = field(default_factory=lambda: defaultdict(_counter))
    exact: bool = False
    error: int = 0
    survivors: int = 0

    @property
    def server_s(self) -> float:
        """The coordinator's seconds, without decoding and encoding messages."""
        return sum(self.server_of.values())

    @property
    def codec_s(self) -> float:
        """Its seconds of decoding and encoding."""
        return sum(self.codec_of.values())

    @property
    def upload(self) -> dict[NodeId, int]:
        """Bytes that each node sent."""
        return {node: sum(by_type.values()) for node, by_type in self.sent.items()}


def _counter() -> dict[str, int]:
    return defaultdict(int)


class _TimedMasks:
    """Removes masks and says in `cost` what that took."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost

    def __call__(self, vector: RingVector, masks: Sequence[Mask]) -> None:
        started = time.process_time()
        apply_masks(vector, masks)
        self._cost.recovery_s += time.process_time() - started
        self._cost.masks = len(masks)


class _Round:
    def __init__(
        self,
        setup: RoundSetup,
        scheme: Scheme | None,
        vanish: tuple[frozenset[NodeId], type[Message]],
        seed: int,
    ) -> None:
        self.setup, self.cost = setup, Cost()
        self._dropped, self._before = vanish
        self._to_server: deque[tuple[NodeId, bytes]] = deque()
        self._to_clients: deque[tuple[NodeId, bytes]] = deque()
        self._inputs = self._draw(np.random.default_rng(seed))
        self._gone: set[NodeId] = set()
        scheme = scheme or MaskingScheme(apply=_TimedMasks(self.cost))
        started = time.process_time()
        self._server = scheme.coordinator(setup, weigh=self._weigh)
        self.cost.server_made_s = time.process_time() - started
        self._clients = {node: self._client(scheme, node) for node in setup.cohort}
        self._sum: SumReady | None = None

    def _draw(self, rng: np.random.Generator) -> RingVector:
        """Return the first node's values; each other node has them shifted, cheaply made."""
        half = 1 << (VALUE_BITS - 1)
        return ring.from_signed(rng.integers(-half, half, self.setup.dim), self.setup.ring_bits)

    def _client(self, scheme: Scheme, node: NodeId) -> ClientRole:
        vector, identity = self._input_of(node), Identity(node)
        started = time.process_time()
        # Where the coordinator weighs, distances are as different as the weights can be.
        index = self.setup.cohort.index(node)
        distance = index / len(self.setup.cohort) if self.setup.coordinator_weighs else None
        client = scheme.client(
            self.setup,
            vector,
            identity,
            coordinator=COORDINATOR,
            rng=os.urandom,
            distance=distance,
        )
        self.cost.client_made_s.append(time.process_time() - started)
        return client

    def _weigh(self, distances: Mapping[NodeId, float]) -> dict[NodeId, int]:
        most = self.setup.ckks.max_weight if self.setup.ckks else 1
        quorum, effective = self.setup.quorum, least_effective(self.setup)
        return weights_from(distances, max_weight=most, quorum=quorum, effective=effective)

    def _input_of(self, node: NodeId) -> RingVector:
        return np.roll(self._inputs, self.setup.cohort.index(node))

    def run(self) -> Cost:
        """Play the round to its end."""
        self._serve("start", lambda: self._server.start(0.0))
        for node, client in self._clients.items():
            self._act(node, "start", lambda each=client: each.start(0.0))  # type: ignore[misc]
        while self._to_server or self._to_clients:
            while self._to_server:
                self._arrive(*self._to_server.popleft())
            if self._to_clients:
                self._deliver(*self._to_clients.popleft())
            elif self._sum is None:
                self._expire()
        self._finish()
        return self.cost

    # --- coordinator ---------------------------------------------------------------------------

    def _expire(self) -> None:
        while not self._to_clients and self._sum is None and self._deadline is not None:
            deadline = self._deadline
            self._serve("timeout", lambda at=deadline: self._server.on_timeout(at))  # type: ignore[misc]

    def _serve(self, name: str, call: Callable[[], Step]) -> None:
        before = time.process_time()
        step = call()
        self._deadline = step.deadline
        for out in step.send:  # the role makes them as they are read: its own work
            made = time.process_time()
            self.cost.server_of[name] += made - before
            frame = encode(out.message)
            self.cost.received[out.to][type(out.message).__name__] += len(frame)
            self._to_clients.append((out.to, frame))
            before = time.process_time()
            self.cost.codec_of[name] += before - made
        self.cost.server_of[name] += time.process_time() - before
        for event in step.events:
            if isinstance(event, SumReady):
                self._sum = event
            elif isinstance(event, RoundFailed):
                raise BenchError(f"the round failed: {event.reason}")

    def _arrive(self, sender: NodeId, frame: bytes) -> None:
        started = time.process_time()
        message = decode(frame, sender=sender)
        name = type(message).__name__
        self.cost.codec_of[name] += time.process_time() - started
        self._serve(name, lambda: self._server.receive(sender, message, 0.0))

    # --- nodes ---------------------------------------------------------------------------------

    def _deliver(self, node: NodeId, frame: bytes) -> None:
        if node in self._gone:
            return
        started = time.process_time()
        message = decode(frame, sender=COORDINATOR)
        spent = time.process_time() - started
        client = self._clients[node]
        name = type(message).__name__
        self._act(node, name, lambda: client.receive(message, 0.0), codec_s=spent)

    def _act(
        self, node: NodeId, name: str, call: Callable[[], Step], *, codec_s: float = 0.0
    ) -> None:
        """Let a node take one step, send what it says, and count both."""
        role_s, before = 0.0, time.process_time()
        for out in _outgoing(call):
            made = time.process_time()
            role_s += made - before
            kind = type(out.message)
            if node in self._dropped and kind is self._before:
                self._gone.add(node)
                self._serve(kind.__name__, lambda: self._server.drop(node, 0.0))
                return
            frame = encode(out.message)
            self.cost.sent[node][kind.__name__] += len(frame)
            self._to_server.append((node, frame))
            before = time.process_time()
            codec_s += before - made
        role_s += time.process_time() - before
        if node not in self._dropped:
            self.cost.client_s[name].append(role_s)
            self.cost.client_codec_s[name].append(codec_s)

    # --- the end -------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._sum is None:
            raise BenchError("the round did not end")
        bits = self.setup.ring_bits
        expected = np.zeros(self.setup.dim, dtype=np.uint32)
        for node, weight in zip(self._sum.contributors, self._sum.weights, strict=True):
            expected += np.uint32(weight) * self._input_of(node)
        difference = ring.to_signed(self._sum.total - expected, bits)
        self.cost.error = int(np.abs(difference.astype(np.int64)).max())
        self.cost.exact = bool(np.array_equal(self._sum.total, ring.reduce(expected, bits)))
        self.cost.survivors = len(self._sum.contributors)

    _deadline: float | None = None


def _outgoing(call: Callable[[], Step]) -> Iterator[Outgoing]:
    """Make a step and yield its messages, which may only now be made."""
    yield from call().send


def play(
    setup: RoundSetup,
    *,
    dropout: float,
    seed: int = 0,
    scheme: Scheme | None = None,
    vanish_before: type[Message] = MaskedChunk,
) -> Cost:
    """Play one round in which some of the nodes vanish.

    Args:
        setup: Of the round.
        dropout: Fraction of the cohort that vanishes.
        seed: Of the inputs, and of who vanishes.
        scheme: Masking, with its masks counted, unless another is given.
        vanish_before: The type of message that they do not come to send; the coordinator hears of
            it at once.

    Raises:
        BenchError: the round fails.
    """
    gone = np.random.default_rng(seed).permutation(len(setup.cohort))
    count = round(dropout * len(setup.cohort))
    dropped = frozenset(setup.cohort[index] for index in gone[:count])
    return _Round(setup, scheme, (dropped, vanish_before), seed).run()
