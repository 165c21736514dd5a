"""Taking ciphertexts and sealed shares in: one running sum, and the boxes for the members.

An upload is the sender's boxes, in batches, and then the chunks of its ciphertext. All of it enters
the sum, or nothing (H-08). Source: specs/36-ckks.md section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from secagg.ckks import rlwe
from secagg.ckks.coefficients import blocks_for
from secagg.ckks.ring import Ring, packed_size
from secagg.ckks.sealing import BOX_OVERHEAD
from secagg.ckks.views import terms_of
from secagg.errors import RemoteProtocolError, ReplayError
from secagg.relay import Relay, Spool
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.uploads import BadUpload, Turns
from secagg.wire.messages import MAX_CHUNK, CipherChunk, SealedSecret

__all__ = ["Layout", "Uploads"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an upload is cut into messages."""

    blocks: int
    """Polynomials of the ciphertext."""
    blocks_in_chunk: int
    chunks: int
    share_bytes: int
    """Bytes of one member's share of a secret."""
    boxes_in_batch: int

    @classmethod
    def of(cls, setup: RoundSetup, ring: Ring) -> Layout:
        """Return the layout of a round."""
        terms = terms_of(setup)
        blocks = blocks_for(setup.dim, terms.ring)
        values = terms.ring.degree * terms.ring.values_per_coefficient
        fit = min(setup.chunk_values // values, MAX_CHUNK // packed_size(1, ring))
        step = max(1, fit)
        return cls(
            blocks=blocks,
            blocks_in_chunk=step,
            chunks=-(-blocks // step),
            share_bytes=terms.share_bytes,
            boxes_in_batch=max(1, MAX_CHUNK // (BOX_OVERHEAD + terms.share_bytes)),
        )

    def chunk(self, index: int) -> range:
        """Return the blocks of a chunk."""
        start = index * self.blocks_in_chunk
        return range(start, max(start, min(start + self.blocks_in_chunk, self.blocks)))


@dataclass(slots=True)
class _Upload:
    boxes: list[bytes] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)


class Uploads:
    """The uploads of one round and their weighted sum.

    Args:
        setup: The round.
        ring: Of its ciphertexts.
        spool: Where the boxes are kept.
    """

    def __init__(self, setup: RoundSetup, ring: Ring, spool: Spool) -> None:
        self._ring, self._layout = ring, Layout.of(setup, ring)
        self._turns = Turns(setup.phase_timeout)
        self._open: dict[NodeId, _Upload] = {}
        self._weights: Mapping[NodeId, int] = {}
        self._place: dict[NodeId, int] = {}
        """Member to its place among the members with keys."""
        self._boxes = Relay(spool)
        self.total = np.zeros((self._layout.blocks, ring.degree), dtype=np.uint64)

    @property
    def deadline(self) -> float | None:
        """When the first of the open turns ends."""
        return self._turns.deadline

    def expect(self, weights: Mapping[NodeId, int], members: Iterable[NodeId]) -> None:
        """Queue the nodes of `weights`, who deal to `members`."""
        self._weights = weights
        self._place = {member: place for place, member in enumerate(members)}
        self._turns.expect(weights)

    def grant(self, now: float) -> list[NodeId]:
        """Give free slots to those next in line; return to whom."""
        return self._turns.grant(now)

    def forget(self, node: NodeId) -> None:
        """Expect nothing more of a node, and drop what it sent so far."""
        self._turns.end(node)
        self._open.pop(node, None)

    def expire(self, now: float) -> tuple[NodeId, ...]:
        """End the turns whose time is up, or the oldest ones; return whose they were."""
        late = self._turns.expired(now)
        for node in late:
            self.forget(node)
        return late

    def box(self, dealer: NodeId, member: NodeId) -> bytes:
        """Return what `dealer` sealed for another node of the committee."""
        place = self._place[member]
        return self._boxes.get(dealer, place - (self._place.get(dealer, place) < place))

    def take(self, sender: NodeId, message: SealedSecret | CipherChunk) -> bool:
        """Store a part of an upload, and fold it if it is the last; tell whether it was (H-08).

        Raises:
            RemoteProtocolError: it is not its turn, or it sent this part before.
            BadUpload: a part out of order or of the wrong size, or a residue beyond the modulus.
        """
        if not self._turns.has(sender):
            raise RemoteProtocolError(sender, "it uploads before its turn")
        upload = self._open.get(sender, _Upload())
        if isinstance(message, SealedSecret):
            self._take_boxes(sender, upload, message)
            return False
        self._take_chunk(sender, upload, message)
        if len(upload.chunks) < self._layout.chunks:
            return False
        self._fold(sender, upload)
        return True

    def _boxes_due(self, dealer: NodeId) -> int:
        return len(self._place) - (dealer in self._place)

    def _take_boxes(self, sender: NodeId, upload: _Upload, message: SealedSecret) -> None:
        due, size = self._boxes_due(sender), BOX_OVERHEAD + self._layout.share_bytes
        if message.start < len(upload.boxes):
            raise ReplayError(sender, f"shares from {message.start} on a second time")
        if message.start > len(upload.boxes) or upload.chunks:
            raise BadUpload(f"shares from {message.start} on where {len(upload.boxes)} were due")
        size_due = min(self._layout.boxes_in_batch, due - message.start)
        if not message.boxes or len(message.boxes) != size_due:
            raise BadUpload(f"{len(message.boxes)} shares in one message")
        if any(len(box) != size for box in message.boxes):
            raise BadUpload(f"a sealed share is not of {size} bytes")
        upload.boxes += message.boxes
        self._open[sender] = upload

    def _take_chunk(self, sender: NodeId, upload: _Upload, chunk: CipherChunk) -> None:
        if chunk.index < len(upload.chunks):
            raise ReplayError(sender, f"chunk {chunk.index} a second time")
        if len(upload.boxes) != self._boxes_due(sender):
            raise BadUpload("a chunk before all of its shares")
        if chunk.index > len(upload.chunks):
            raise BadUpload(f"chunk {chunk.index} where {len(upload.chunks)} was due")
        if len(chunk.data) != packed_size(len(self._layout.chunk(chunk.index)), self._ring):
            raise BadUpload(f"chunk {chunk.index} has {len(chunk.data)} bytes")
        upload.chunks.append(chunk.data)
        self._open[sender] = upload

    def _fold(self, sender: NodeId, upload: _Upload) -> None:
        parts = []
        for index, data in enumerate(upload.chunks):
            part = rlwe.unpack(data, len(self._layout.chunk(index)), self._ring)
            if part is None:
                raise BadUpload("a residue of its ciphertext is beyond the modulus")
            parts.append(part)
        for index, part in enumerate(parts):
            blocks = self._layout.chunk(index)
            total = self.total[blocks.start : blocks.stop]
            rlwe.add(total, part, self._ring, weight=self._weights[sender])  # H-01
        self._boxes.put(sender, upload.boxes)
        self.forget(sender)
