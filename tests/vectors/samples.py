"""A sample of every message, and bytes that are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from secagg.wire.codec import encode
from secagg.wire.messages import Coin, Hello, KeyAdvert, SealedShares, SurvivorSignature
from tests.vectors.stage import drawn

__all__ = ["MALFORMED", "SAMPLES"]

HASH: Final = drawn("hash")
SIGNATURE: Final = drawn("signature", size=64)
KEM_KEY: Final = bytes(1184)
CAPSULE: Final = b"\xa5" * 1088
SHARE: Final = drawn("share", size=33)
ADVERT: Final = (7, "node-a", 1, HASH, KEM_KEY, HASH, HASH, HASH, SIGNATURE)

SAMPLES: Final[Mapping[str, tuple[Any, ...]]] = {
    "Hello": ("0.1.0", 1, 65_536, 1.5),
    "Welcome": (HASH[:16], "0.1.0", 3, 1e9, 5.0, 0, 200),
    "RosterUpdate": (b"roster" * 50,),
    "Heartbeat": (2**53, "training"),
    "Refusal": (7, "cohort_too_small", "fünf Knoten sind zu wenige"),
    "RoundOffer": (
        7, 6, 20, 3, "masking", ("node-a", "node-b", "node-c"), 2, 3, 2, 0, 16, 18, 32_768,
        4.0, 1.0, 30.0, 600.0, HASH, 1_000_000, b"{}", b"",
    ),
    "ModelChunk": (7, 127, b"\x7f"),
    "RoundClosed": (7, "done", ("node-a", "node-c")),
    "RunFinished": (21, 20, True, HASH, 1, b"{}", bytes(256)),
    "Farewell": (128,),
    "Probe": ("0.1.0", 1),
    "KeyAdvert": ADVERT,
    "AdvertList": (7, 4, (("node-a", HASH, HASH), ("node-b", HASH, HASH))),
    "Coin": (7, 1, HASH),
    "PeerKeys": (7, (("node-a", HASH),), (HASH,), (KeyAdvert(*ADVERT),)),
    "Encapsulations": (7, (("node-b", CAPSULE, HASH),)),
    "PeerEncapsulations": (7, tuple(f"node-{i:02d}" for i in range(16)), ()),
    "SealedShares": (7, (("node-b", bytes(82)), ("node-c", b"")), bytes(80)),
    "PeerShares": (7, ("n" * 63,), ()),
    "UploadTurn": (7,),
    "MaskedChunk": (7, 0, SIGNATURE, bytes(20)),
    "Survivors": (7, ("node-a", "node-b"), (("node-b", SIGNATURE),)),
    "SurvivorSignature": (7, SIGNATURE),
    "UnmaskRequest": (7, (("node-a", SIGNATURE),)),
    "UnmaskAnswer": (7, (("node-a", SHARE),), (("node-b", SHARE),)),
    "PlainChunk": (7, 2**20, b"\0"),
}  # fmt: skip


def _coin(*fields: Any) -> bytes:
    return encode(Coin(*fields))


_COIN = _coin(7, 1, HASH)
_HELLO = encode(Hello("0.1.0", 1, 3, 1.5))
_SEALED = encode(SealedShares(7, (("node-b", b"x"),), b""))

MALFORMED: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "a number": b"\x07",
    "an empty array": b"\x90",
    "a map": b"\x80",
    "a type number that is not in the table": b"\x92\x1f\x07",
    "a type number in two bytes": b"\x94\xcc\x12" + _COIN[2:],
    "a field missing": b"\x93" + _COIN[1:-34],
    "a field too many": b"\x95" + _COIN[1:] + b"\x00",
    "a byte after the end": _COIN + b"\x00",
    "the last byte missing": _COIN[:-1],
    "an array header of three bytes": b"\xdc\x00\x04" + _COIN[1:],
    "a round id in two bytes": _COIN[:2] + b"\xcc" + _COIN[2:],
    "a negative round id": _COIN[:2] + b"\xff" + _COIN[3:],
    "a round id above 2^53": _coin(2**53 + 1, 1, HASH),
    "true for an integer": _COIN[:2] + b"\xc3" + _COIN[3:],
    "null for an integer": _COIN[:2] + b"\xc0" + _COIN[3:],
    "toss 0": _coin(7, 0, HASH),
    "toss 5": _coin(7, 5, HASH),
    "a coin of 31 bytes": _coin(7, 1, HASH[1:]),
    "a coin as text": _COIN[:4] + b"\xd9" + b"\x20" + b"a" * 32,
    "a binary header of three bytes": _COIN[:4] + b"\xc5\x00\x20" + HASH,
    "a signature of 65 bytes": encode(SurvivorSignature(7, bytes(65))),
    "a text header of two bytes": _HELLO[:2] + b"\xd9\x05" + _HELLO[3:],
    "text that is not UTF-8": _HELLO[:2] + b"\xa5\xff\xfe\xfd\xfc\xfb" + _HELLO[8:],
    "a float in four bytes": _HELLO[:-9] + b"\xca\x3f\xc0\x00\x00",
    "an integer for a float": _HELLO[:-9] + b"\x01",
    "an id of 64 characters": encode(SealedShares(7, (("n" * 64, b"x"),), b"")),
    "a box of 257 bytes": encode(SealedShares(7, (("node-b", bytes(257)),), b"")),
    "a box with three parts": _SEALED.replace(b"\x92\xa6", b"\x93\xa6").replace(
        b"\xc4\x01x", b"\xc4\x01x\x00"
    ),
    "nested arrays": b"\x91" * 5000 + b"\x90",
    "a length that no frame holds": b"\x94\x12\x07\x01\xc6\xff\xff\xff\xff",
}
