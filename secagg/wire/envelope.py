"""The signed wrapper around every message: who sent it, to whom, in which run.

Layout, all integers little-endian::

    byte 0         protocol version
    bytes 1-16     run id (zeros until the node knows it)
    byte 17        length of the sender's id, then the id
    next byte      length of the receiver's id, then the id
    64 bytes       Ed25519 signature over the envelope tag, the above and the message's SHA-256
    rest           the message

A message for many peers is encoded and hashed once (`Body`), and its bytes are shared by all their
envelopes until the transport joins the two parts.

Source: specs/20-wire.md section 4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from secagg.errors import DecodeError, ReplayError, RunMismatchError
from secagg.primitives.signing import SIGNATURE_SIZE, sign, verify
from secagg.tags import ENVELOPE
from secagg.types import NodeId, Signer
from secagg.version import PROTOCOL_VERSION
from secagg.wire.codec import MAX_FRAME, decode, encode
from secagg.wire.messages import Hello, Message, Probe, Welcome

__all__ = [
    "MAX_ENVELOPE",
    "NO_RUN",
    "Body",
    "Envelope",
    "Opened",
    "open_envelope",
    "seal_envelope",
]

NO_RUN: Final = bytes(16)
_FIXED: Final = 1 + 16
MAX_ENVELOPE: Final = MAX_FRAME + _FIXED + 2 * 64 + SIGNATURE_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A message whose signature holds."""

    sender: NodeId
    run_id: bytes
    message: Message = field(repr=False)


class Body:
    """An encoded message, to be sealed for one peer or for many."""

    __slots__ = ("data", "digest")

    def __init__(self, message: Message) -> None:
        self.data = encode(message)
        self.digest = hashlib.sha256(self.data).digest()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sealed message; `bytes()` of it is the frame."""

    head: bytes = field(repr=False)
    """Header and signature."""
    body: bytes = field(repr=False)
    """The encoded message, perhaps shared with other envelopes."""

    def __len__(self) -> int:
        return len(self.head) + len(self.body)

    def __bytes__(self) -> bytes:
        return self.head + self.body


def seal_envelope(
    message: Message | Body, signer: Signer, *, to: NodeId, run_id: bytes
) -> Envelope:
    """Return the envelope that carries `message` from `signer` to `to`."""
    body = message if isinstance(message, Body) else Body(message)
    header = _header(run_id, signer.node_id, to)
    return Envelope(header + sign(signer, ENVELOPE, header, body.digest), body.data)


def open_envelope(
    frame: bytes, *, sender: NodeId, key: bytes, receiver: NodeId, run_id: bytes
) -> Opened:
    """Check a frame and decode its message.

    Args:
        frame: What arrived.
        sender: Who sent it, as the transport authenticated them.
        key: That peer's Ed25519 key from the roster.
        receiver: This party.
        run_id: The current run; `NO_RUN` at a node that has not been welcomed yet.

    Raises:
        DecodeError: the frame is no envelope, of another protocol version, or from another sender.
        ReplayError: it is for another receiver (W-06).
        RunMismatchError: it belongs to another run (W-06).
        AuthenticationError: the signature does not hold (W-05).
    """
    if len(frame) > MAX_ENVELOPE:
        raise DecodeError(sender, f"a frame of {len(frame)} bytes exceeds {MAX_ENVELOPE}")
    run, claimed, to, header, rest = _split(frame, sender)
    if claimed != sender:  # W-08
        raise DecodeError(sender, "the envelope names another sender")
    if to != receiver:
        raise ReplayError(sender, "the envelope is for another receiver")
    signature, body = rest[:SIGNATURE_SIZE], rest[SIGNATURE_SIZE:]
    verify(key, signature, ENVELOPE, header, hashlib.sha256(body).digest(), signer=sender)
    message = decode(body, sender=sender)
    greeting = isinstance(message, Hello | Probe | Welcome)
    if run != run_id and not greeting:
        raise RunMismatchError(sender, f"{type(message).__name__} belongs to another run")
    return Opened(sender, run, message)


def _header(run_id: bytes, sender: NodeId, to: NodeId) -> bytes:
    names = b"".join(bytes([len(name)]) + name.encode() for name in (sender, to))
    return bytes([PROTOCOL_VERSION]) + run_id + names


def _split(frame: bytes, sender: str) -> tuple[bytes, NodeId, NodeId, bytes, bytes]:
    if len(frame) < _FIXED + 2 + SIGNATURE_SIZE:
        raise DecodeError(sender, "the frame is too short for an envelope")
    if frame[0] != PROTOCOL_VERSION:  # W-01
        raise DecodeError(
            sender, f"it speaks protocol version {frame[0]}, this side {PROTOCOL_VERSION}"
        )
    position, names = _FIXED, []
    for _ in range(2):
        length = frame[position] if position < len(frame) else 0
        raw = frame[position + 1 : position + 1 + length]
        if not 1 <= length <= 63 or len(raw) != length or not raw.isascii():
            raise DecodeError(sender, "the envelope's ids are malformed")
        names.append(raw.decode("ascii"))
        position += 1 + length
    if len(frame) < position + SIGNATURE_SIZE:
        raise DecodeError(sender, "the frame is too short for an envelope")
    return frame[1:17], names[0], names[1], frame[:position], frame[position:]
