"""Bytes to messages and back, one canonical encoding for each message.

Source: specs/20-wire.md sections 2 and 3.
"""

from __future__ import annotations

from typing import Final

import msgspec

from secagg.errors import DecodeError, LocalProtocolError
from secagg.primitives.kdf import digest
from secagg.tags import OFFER
from secagg.wire.messages import Message, RoundOffer

__all__ = ["MAX_FRAME", "decode", "encode", "offer_hash"]

MAX_FRAME: Final = 1 << 23
"""Bytes of one frame: the largest message is a roster of 10 000 members, about 4 MB."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the one encoding of `message`.

    Raises:
        LocalProtocolError: it exceeds `MAX_FRAME`.
    """
    data = _ENCODER.encode(message)
    if len(data) > MAX_FRAME:
        raise LocalProtocolError(f"{type(message).__name__} of {len(data)} bytes exceeds a frame")
    return data


def decode(data: bytes, *, sender: str) -> Message:
    """Decode one message and check it is spelt canonically.

    Raises:
        DecodeError: blames `sender`; the bytes are too long, no message, out of a field's limits,
            followed by others, or not the canonical encoding (W-02 to W-04).
    """
    if len(data) > MAX_FRAME:  # before anything is allocated
        raise DecodeError(sender, f"a message of {len(data)} bytes exceeds {MAX_FRAME}")
    try:
        message: Message = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise DecodeError(sender, "the bytes are not a message of this protocol") from None
    if _ENCODER.encode(message) != data:
        raise DecodeError(sender, f"{type(message).__name__} is not in canonical form")
    return message


def offer_hash(run_id: bytes, offer: RoundOffer) -> bytes:
    """Return the 32-byte hash that binds every key and mask of a round to its whole offer."""
    return digest(OFFER, run_id, encode(offer))
