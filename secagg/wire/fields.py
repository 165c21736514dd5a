"""What the fields of messages may hold, and what all messages have in common (W-02, W-10)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from secagg.types import MAX_COHORT

__all__ = [
    "MAX_ATTEMPTS",
    "MAX_CHUNK",
    "MAX_LEVELS",
    "MAX_ROSTER",
    "MAX_STEPS",
    "MODEL_CHUNK",
    "UPLOAD_SLOTS",
    "Base",
    "Capsule",
    "Chunk",
    "Count",
    "Counter",
    "EpochId",
    "Hash",
    "Id",
    "Ids",
    "Index",
    "KemKey",
    "Key",
    "ModelDim",
    "Receipt",
    "RunId",
    "Seconds",
    "Share",
    "Signature",
    "Text",
    "Word",
]

MAX_CHUNK = 1 << 19
"""Bytes of vector data in one message: a slow link still sends it within seconds."""
MODEL_CHUNK = 1 << 18
"""Bytes of every `ModelChunk` but the last."""
MAX_ATTEMPTS = 4
"""Times that nodes toss coins for a graph until all of them arrive (M-06)."""
UPLOAD_SLOTS = 8
"""Uploads that a coordinator takes at a time: what it must hold besides the sum (M-22)."""
MAX_STEPS = 64
"""Greatest consistency distance that a node discloses, in eighths (H-16)."""
MAX_LEVELS = 16
"""Parts of a node's noise that are drawn apart: one seed more each, and one more pass (X-02)."""
MAX_ROSTER = 1 << 22  # 10 000 members of some 400 bytes

Id = Annotated[str, Meta(max_length=63)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
KemKey = Annotated[bytes, Meta(min_length=1184, max_length=1184)]  # FIPS 203, ML-KEM-768
Capsule = Annotated[bytes, Meta(min_length=1088, max_length=1088)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Share = Annotated[bytes, Meta(min_length=33, max_length=33)]
RunId = Annotated[bytes, Meta(min_length=16, max_length=16)]
EpochId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Counter = Annotated[int, Meta(ge=0, le=2**53)]
Index = Annotated[int, Meta(ge=0, le=2**20)]
Count = Annotated[int, Meta(ge=1, le=2**20)]
ModelDim = Annotated[int, Meta(ge=1, le=1 << 26)]
Chunk = Annotated[bytes, Meta(min_length=1, max_length=MAX_CHUNK)]
Receipt = Annotated[bytes, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=500)]
Word = Annotated[str, Meta(max_length=64)]
Seconds = Annotated[float, Meta(gt=0, le=1e6)]
Ids = Annotated[tuple[Id, ...], Meta(max_length=MAX_COHORT)]


class Base(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """Common options: immutable, encoded by position, silent.

    No equality and no field in the repr, since some messages carry shares and vectors.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # M-20
