"""A sample of every message, and bytes that are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from secagg.wire.codec import encode
from secagg.wire.messages import (
    Announcement,
    CkksTerms,
    Coin,
    CorrelatedTerms,
    DpTerms,
    Hello,
    KeyAdvert,
    RoundOffer,
    SealedShares,
    SealingKey,
    SurvivorSignature,
)
from tests.vectors.stage import drawn

__all__ = ["MALFORMED", "SAMPLES", "VARIANTS"]

HASH: Final = drawn("hash")
SIGNATURE: Final = drawn("signature", size=64)
KEM_KEY: Final = bytes(1184)
CAPSULE: Final = b"\xa5" * 1088
SHARE: Final = drawn("share", size=33)
ADVERT: Final = (7, "node-a", 1, HASH, KEM_KEY, HASH, HASH, HASH, SIGNATURE)
SEALING_KEY: Final = SealingKey("node-a", 1, HASH, KEM_KEY, SIGNATURE)
TERMS: Final = CkksTerms(False, 1, 2048, 49, 2, 20, 9, 4, 1, 10, 3, 1, 3, 65_521)
EPOCH: Final = CorrelatedTerms(HASH[:16], 3, (1000, -3, -700), 0.01, 16, 4, 12)
NOISE: Final = DpTerms("discrete-gaussian", 1.5, 2048, 0.75, 2, True, False, (0, 1), EPOCH)

SAMPLES: Final[Mapping[str, tuple[Any, ...]]] = {
    "Hello": ("0.1.0", 1, 65_536, 1.5),
    "Welcome": (HASH[:16], "0.1.0", 3, 1e9, 5.0, 0, 200),
    "RosterUpdate": (b"roster" * 50,),
    "Heartbeat": (2**53, "training"),
    "Refusal": (7, "cohort_too_small", "fünf Knoten sind zu wenige"),
    "RoundOffer": (
        7, 6, 20, 3, "ckks", ("node-a", "node-b", "node-c"), 2, 3, 2, 0, 16, 18, 32_768,
        4.0, 1.0, 30.0, 600.0, HASH, 1_000_000, b"{}", b"", TERMS, NOISE,
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
    "Announcement": (7, SEALING_KEY, 12),
    "CommitteeKeys": (7, (SEALING_KEY,)),
    "SealedSecret": (7, 0, (bytes(1104), b"")),
    "CipherChunk": (7, 0, bytes(20)),
    "WeightedSurvivors": (7, ("node-a", "node-b"), b"\x01\x04"),
    "DealtShares": (7, 2, ((HASH, HASH, SIGNATURE, bytes(1104)),)),
    "OpenRequest": (7, (("node-a", SIGNATURE),)),
    "SumShare": (7, b"", ("node-b",)),
    "PlainChunk": (7, 2**20, b"\0"),
    "ExcessRequest": (7, 2, (("node-a", SIGNATURE),)),
    "ExcessSeeds": (7, (HASH, SIGNATURE[:32])),
}  # fmt: skip
VARIANTS: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("RoundOffer", (*SAMPLES["RoundOffer"][:-1], None)),
    ("Announcement", (*SAMPLES["Announcement"][:-1], None)),
)
"""Messages without what they need not have."""


def _coin(*fields: Any) -> bytes:
    return encode(Coin(*fields))


_COIN = _coin(7, 1, HASH)
_HELLO = encode(Hello("0.1.0", 1, 3, 1.5))
_SEALED = encode(SealedShares(7, (("node-b", b"x"),), b""))
_KEY = msgspec.msgpack.encode(SEALING_KEY)

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
    "a float in four bytes": _HELLO[:-11] + b"\xca\x3f\xc0\x00\x00\xc4\x00",
    "an integer for a float": _HELLO[:-11] + b"\x01\xc4\x00",
    "an id of 64 characters": encode(SealedShares(7, (("n" * 64, b"x"),), b"")),
    "a box of 257 bytes": encode(SealedShares(7, (("node-b", bytes(257)),), b"")),
    "a box with three parts": _SEALED.replace(b"\x92\xa6", b"\x93\xa6").replace(
        b"\xc4\x01x", b"\xc4\x01x\x00"
    ),
    "terms of ckks with a field missing": encode(RoundOffer(*SAMPLES["RoundOffer"])).replace(
        b"\x9e\xc2\x01", b"\x9d\x01"
    ),
    "noise with a field missing": encode(RoundOffer(*SAMPLES["RoundOffer"]))
    .replace(b"\x99\xb1discrete", b"\x98\xb1discrete")
    .replace(b"\x92\x00\x01\x97", b"\x97"),
    "a receipt of 257 bytes": encode(Hello("0.1.0", 1, 3, 1.5, bytes(257))),
    "nil for a key": encode(Announcement(7, SEALING_KEY, None)).replace(_KEY, b"\xc0"),
    "a distance below 0": encode(Announcement(7, SEALING_KEY, -1)),
    "a distance beyond 64 eighths": encode(Announcement(7, SEALING_KEY, 65)),
    "a distance that is not counted": encode(Announcement(7, SEALING_KEY, 1.5)),  # type: ignore[arg-type]
    "nested arrays": b"\x91" * 5000 + b"\x90",
    "a length that no frame holds": b"\x94\x12\x07\x01\xc6\xff\xff\xff\xff",
}
