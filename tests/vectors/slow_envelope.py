"""The envelope of specs/20-wire.md section 4 a second time; nothing of `secagg`."""

from __future__ import annotations

import hashlib

from tests.vectors import slow_parts as parts
from tests.vectors import slow_wire as wire
from tests.vectors.slow import Refused

__all__ = ["open_envelope", "seal_envelope"]

GREETINGS = {"Hello", "Probe", "Welcome"}


def _header(run_id: bytes, sender: str, receiver: str) -> bytes:
    names = b"".join(bytes([len(name)]) + name.encode("ascii") for name in (sender, receiver))
    return bytes([parts.VERSION]) + run_id + names


def seal_envelope(
    body: bytes, *, identity: bytes, sender: str, receiver: str, run_id: bytes
) -> bytes:
    """Return the frame that carries the message `body`."""
    header = _header(run_id, sender, receiver)
    return header + parts.sign(identity, "envelope", header, hashlib.sha256(body).digest()) + body


def open_envelope(frame: bytes, *, sender: str, key: bytes, receiver: str, run_id: bytes) -> bytes:
    """Return the message in a frame, the checks in the order of the specification."""
    names, at = [], 17
    if len(frame) > wire.MAX_FRAME + 17 + 2 * 64 + 64 or frame[:1] != bytes([parts.VERSION]):
        raise Refused("decode", sender)
    for _ in range(2):
        size = frame[at] if at < len(frame) else 0
        name = frame[at + 1 : at + 1 + size]
        if not 1 <= size <= 63 or len(name) != size or not name.isascii():
            raise Refused("decode", sender)
        names.append(name.decode())
        at += 1 + size
    header, signature, body = frame[:at], frame[at : at + 64], frame[at + 64 :]
    if len(signature) != 64 or names[0] != sender:
        raise Refused("decode", sender)
    if names[1] != receiver:
        raise Refused("replay", sender)
    if not parts.holds(key, signature, "envelope", header, hashlib.sha256(body).digest()):
        raise Refused("authentication", sender)
    try:
        kind, *_ = wire.decode(body)
    except wire.MalformedError:
        raise Refused("decode", sender) from None
    if frame[1:17] != run_id and wire.table()[kind][0] not in GREETINGS:
        raise Refused("replay", sender)
    return body
