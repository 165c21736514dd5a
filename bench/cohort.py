"""One masked round in this process, with every node's and the coordinator's CPU time apart.

The real state machines exchange encoded messages in memory. Sockets, envelopes and local training
are left out; `bench/sockets.py` measures a round with all of them.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from bench.common import BenchError
from secagg.encoding import ring_bits_for
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.masks import Mask, apply_masks
from secagg.masking.parameters import MaskingParameters
from secagg.ring import reduce
from secagg.steps import RoundFailed, Step, SumReady
from secagg.types import NodeId, RingVector, RoundSetup
from secagg.wire.codec import decode, encode
from secagg.wire.messages import MaskedChunk, Message

__all__ = ["Cost", "Identity", "make_setup", "play"]

COORDINATOR = "coordinator"
CHUNK_VALUES = 131_072
"""The largest that fits a message at any ring size."""


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
    """Return the set-up of a round of `n` nodes with vectors of `dim` values."""
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
    """What one round took.

    Attributes:
        client_s: Phase to the CPU seconds of each node that finished, in its order of names.
        server_s: CPU seconds of the coordinator, without decoding and encoding messages.
        codec_s: CPU seconds of decoding and encoding its messages.
        recovery_s: Of these, removing the masks at the end.
        masks: Masks that were removed.
        upload: Node to bytes it sent, as encoded messages.
        upload_of: Message type to bytes, of the node that sent most in all.
        exact: Whether the sum is that of the inputs, bit for bit.
        survivors: Whose inputs it holds.
    """

    client_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    server_s: float = 0.0
    codec_s: float = 0.0
    recovery_s: float = 0.0
    masks: int = 0
    upload: dict[NodeId, int] = field(default_factory=lambda: defaultdict(int))
    upload_of: dict[str, int] = field(default_factory=dict)
    exact: bool = False
    survivors: int = 0


class _Round:
    def __init__(self, setup: RoundSetup, dropped: frozenset[NodeId], seed: int) -> None:
        self.setup, self.dropped, self.cost = setup, dropped, Cost()
        self._rng = np.random.default_rng(seed)  # of inputs; secrets come from the system
        self._up: dict[NodeId, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._to_server: deque[tuple[NodeId, bytes]] = deque()
        self._to_clients: deque[tuple[NodeId, bytes]] = deque()
        self.expected: RingVector = np.zeros(setup.dim, dtype=np.uint32)
        self._inputs = self._input()
        self._server = MaskingCoordinator(setup, apply=self._apply)
        self._clients = {node: self._client(node) for node in setup.cohort}
        self._total: NDArray[np.uint32] | None = None

    def _input(self) -> RingVector:
        largest = 1 << (self.setup.ring_bits - 1)
        signed = self._rng.integers(-100, 100, self.setup.dim) % (2 * largest)
        return signed.astype(np.uint32)

    def _client(self, node: NodeId) -> MaskingClient:
        index = self.setup.cohort.index(node)
        vector = np.roll(self._inputs, index)  # each node another one, cheaply made
        if node not in self.dropped:
            self.expected += vector
        return MaskingClient(
            self.setup, vector, Identity(node), coordinator=COORDINATOR, rng=np.random.bytes
        )

    def _apply(self, vector: RingVector, masks: Sequence[Mask]) -> None:
        started = time.process_time()
        apply_masks(vector, masks)
        self.cost.recovery_s += time.process_time() - started
        self.cost.masks = len(masks)

    def run(self) -> Cost:
        """Play the round to its end."""
        self._serve(lambda: self._server.start(0.0))
        for node, client in self._clients.items():
            started = time.process_time()
            step = client.start(0.0)
            self.cost.client_s["start"].append(time.process_time() - started)
            self._collect(node, step)
        while self._to_server or self._to_clients:
            while self._to_server:
                self._arrive(*self._to_server.popleft())
            if self._to_clients:
                self._deliver(*self._to_clients.popleft())
            elif not self._total_known:
                self._expire()
        self._finish()
        return self.cost

    @property
    def _total_known(self) -> bool:
        return self._total is not None

    def _expire(self) -> None:
        while not self._to_clients and not self._total_known and self._deadline is not None:
            deadline = self._deadline
            self._serve(lambda at=deadline: self._server.on_timeout(at))  # type: ignore[misc]

    def _serve(self, call: Callable[[], Step]) -> None:
        before = time.process_time()
        step = call()
        self._deadline = step.deadline
        for out in step.send:  # the role makes them as they are read: its own work
            made = time.process_time()
            self.cost.server_s += made - before
            self._to_clients.append((out.to, encode(out.message)))
            before = time.process_time()
            self.cost.codec_s += before - made
        self.cost.server_s += time.process_time() - before
        for event in step.events:
            if isinstance(event, SumReady):
                self._total, self.cost.survivors = event.total, len(event.contributors)
            elif isinstance(event, RoundFailed):
                raise BenchError(f"the round failed: {event.reason}")

    def _arrive(self, sender: NodeId, frame: bytes) -> None:
        started = time.process_time()
        message = decode(frame, sender=sender)
        self.cost.codec_s += time.process_time() - started
        self._serve(lambda: self._server.receive(sender, message, 0.0))

    def _deliver(self, node: NodeId, frame: bytes) -> None:
        client, message = self._clients[node], decode(frame, sender=COORDINATOR)
        started = time.process_time()
        step = client.receive(message, 0.0)
        spent = time.process_time() - started
        if node not in self.dropped:
            self.cost.client_s[type(message).__name__].append(spent)
        self._collect(node, step)

    def _collect(self, node: NodeId, step: Step) -> None:
        for out in step.send:
            if node in self.dropped and isinstance(out.message, MaskedChunk):
                self._serve(lambda: self._server.drop(node, 0.0))
                return
            self._send(node, out.message)

    def _send(self, node: NodeId, message: Message) -> None:
        frame = encode(message)
        self.cost.upload[node] += len(frame)
        self._up[node][type(message).__name__] += len(frame)
        self._to_server.append((node, frame))

    def _finish(self) -> None:
        if self._total is None:
            raise BenchError("the round did not end")
        expected = reduce(self.expected, self.setup.ring_bits)
        self.cost.exact = bool(np.array_equal(self._total, expected))
        most = max(self.cost.upload, key=lambda node: self.cost.upload[node])
        self.cost.upload_of = dict(self._up[most])

    _deadline: float | None = None


def play(setup: RoundSetup, *, dropout: float, seed: int = 0) -> Cost:
    """Play one round in which a fraction of the nodes vanish just before they upload."""
    gone = np.random.default_rng(seed).permutation(len(setup.cohort))
    count = round(dropout * len(setup.cohort))
    dropped = frozenset(setup.cohort[index] for index in gone[:count])
    return _Round(setup, dropped, seed).run()
