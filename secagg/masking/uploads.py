"""Taking masked inputs in: who may upload when, and one running sum.

A few nodes upload at a time, so that what is held besides the sum does not grow with the cohort.
All of an upload enters the sum or nothing of it. Source: specs/30-masking.md section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from secagg import ring
from secagg.errors import RemoteProtocolError, ReplayError
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector
from secagg.uploads import BadUpload, Turns
from secagg.wire.messages import MaskedChunk

__all__ = ["BadUpload", "Uploads"]


class Uploads:
    """The uploads of one round and their sum."""

    def __init__(self, setup: RoundSetup) -> None:
        self._setup = setup
        self._turns = Turns(setup.phase_timeout)
        self._chunks: dict[NodeId, list[bytes]] = {}
        self.total: RingVector = np.zeros(setup.dim, dtype=np.uint32)

    @property
    def deadline(self) -> float | None:
        """When the first of the open turns ends."""
        return self._turns.deadline

    def expect(self, nodes: Iterable[NodeId]) -> None:
        """Queue nodes that owe an upload."""
        self._turns.expect(nodes)

    def grant(self, now: float) -> list[NodeId]:
        """Give free slots to those next in line; return to whom."""
        return self._turns.grant(now)

    def forget(self, node: NodeId) -> None:
        """Expect nothing more of a node, and drop what it sent so far."""
        self._turns.end(node)
        self._chunks.pop(node, None)

    def expire(self, now: float) -> tuple[NodeId, ...]:
        """End the turns whose time is up, or the oldest ones; return whose they were."""
        late = self._turns.expired(now)
        for node in late:
            self.forget(node)
        return late

    def check_turn(self, sender: NodeId, chunk: MaskedChunk) -> int:
        """Return the index of the chunk that is due from `sender`.

        Raises:
            RemoteProtocolError: it is not its turn, or it sent this chunk before.
        """
        if not self._turns.has(sender):
            raise RemoteProtocolError(sender, "it uploads before its turn")
        due = len(self._chunks.get(sender, ()))
        if chunk.index < due:
            raise ReplayError(sender, f"chunk {chunk.index} a second time")
        return due

    def take(self, sender: NodeId, chunk: MaskedChunk) -> bool:
        """Store a chunk, and fold the upload if it is the last one; tell whether it was (M-16).

        Raises:
            BadUpload: a chunk out of order or of the wrong size, or padding bits are set.
        """
        setup, chunks = self._setup, self._chunks.setdefault(sender, [])
        if chunk.index != len(chunks):
            raise BadUpload(f"chunk {chunk.index} where {len(chunks)} was due")
        if len(chunk.data) != ring.packed_size(self._chunk_dim(chunk.index), setup.ring_bits):
            raise BadUpload(f"chunk {chunk.index} has {len(chunk.data)} bytes")
        chunks.append(chunk.data)
        if len(chunks) < setup.n_chunks:
            return False
        # Only the last chunk can have padding. It is read first, so all or nothing is folded.
        for index in reversed(range(setup.n_chunks)):
            start, dim = index * setup.chunk_values, self._chunk_dim(index)
            part = ring.unpack(chunks.pop(), dim, setup.ring_bits)
            if part is None:
                raise BadUpload("its upload has padding bits set")
            self.total[start : start + dim] += part  # M-01
        self.forget(sender)
        return True

    def _chunk_dim(self, index: int) -> int:
        step = self._setup.chunk_values
        return max(0, min(step, self._setup.dim - index * step))
