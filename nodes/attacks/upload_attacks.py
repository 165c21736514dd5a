"""What an evil node can do to a round by its upload and by its signature under the survivors."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Final

import msgspec
import numpy as np

from nodes.attacks.node_moves import as_due, instead, node_attack
from nodes.attacks.node_stage import Federation, Move
from nodes.attacks.report import Attack
from nodes.attacks.target_stage import TargetMove, TargetRound
from secagg import ring
from secagg.types import NodeId
from secagg.wire.messages import (
    UPLOAD_SLOTS,
    MaskedChunk,
    Message,
    PeerShares,
    SurvivorSignature,
)

__all__ = ["UPLOAD_ATTACKS"]

_LEAST_DIM: Final = 16
"""Two chunks at least."""


def _submits_twice() -> Move:
    """Upload once as due, and once more in the clear."""

    def move(stage: Federation, _: Message | None, due: list[Message]) -> list[Message]:
        again: list[Message] = []
        for message in due:
            if isinstance(message, MaskedChunk):
                start, step = message.index * stage.setup.chunk_values, stage.setup.chunk_values
                part = stage.inputs[stage.own._me][start : start + step]
                data = ring.pack(part, stage.setup.ring_bits)
                again.append(msgspec.structs.replace(message, data=data))
        return due + again

    return move


def _twice_to_target(target: TargetRound) -> TargetMove:
    plain = ring.pack(target.inputs[target.attacked], target.setup.ring_bits)
    return TargetMove(uploads=lambda upload: [upload, plain])


def _out_of_turn() -> Move:
    """Upload all but the last chunk as soon as the masks are known, and all when its turn comes."""

    def move(stage: Federation, got: Message | None, due: list[Message]) -> list[Message]:
        return list(stage.own._upload[:-1]) if isinstance(got, PeerShares) else due

    return move


def _short_chunk(_: Federation, chunk: MaskedChunk) -> list[Message]:
    return [msgspec.structs.replace(chunk, data=chunk.data[:-1])]


def _full_padding(stage: Federation, chunk: MaskedChunk) -> list[Message]:
    setup = stage.setup
    if chunk.index < setup.n_chunks - 1:
        return [chunk]
    data = _padded(chunk.data, setup.dim - chunk.index * setup.chunk_values, setup.ring_bits)
    return [msgspec.structs.replace(chunk, data=data)]


def _padded(data: bytes, dim: int, bits: int) -> bytes:
    """Set the bits after the last of `dim` packed values, and no others."""
    whole = np.full(-(-dim // 8) * 8, 0xFFFFFFFF, dtype=np.uint32)
    part = ring.unpack(data, dim, bits)
    if part is not None:
        whole[:dim] = part
    return ring.pack(whole, bits)


def _padded_target(target: TargetRound) -> TargetMove:
    setup = target.setup
    return TargetMove(uploads=lambda upload: [_padded(upload, setup.dim, setup.ring_bits)])


def _entered(stage: Federation, nodes: Collection[NodeId]) -> str:
    return "an upload that is not in its one form entered the sum" if stage.evil in nodes else ""


def _short_to_target(_: TargetRound) -> TargetMove:
    return TargetMove(uploads=lambda upload: [upload[:-1]])


def _forged(_: Federation, due: SurvivorSignature) -> list[Message]:
    return [SurvivorSignature(due.round_id, secrets.token_bytes(len(due.signature)))]


UPLOAD_ATTACKS: Final[tuple[Attack, ...]] = (
    node_attack(
        "submits-twice",
        "A node uploads its masked input and then its input once more.",
        ("M-13", "M-22"),
        _submits_twice,
        _twice_to_target,
    ),
    node_attack(
        "out-of-turn-upload",
        "A node uploads before its turn, to make the coordinator hold more.",
        ("M-22",),
        _out_of_turn,
        as_due,
        size=lambda n, dim: (max(n, UPLOAD_SLOTS + 2), max(dim, _LEAST_DIM)),
        last=True,
    ),
    node_attack(
        "garbage-chunks",
        "A node's chunks are a byte short.",
        ("M-16",),
        lambda: instead(MaskedChunk, _short_chunk),
        _short_to_target,
        judge=_entered,
    ),
    node_attack(
        "garbage-padding",
        "A node sets the bits after its last value.",
        ("M-16",),
        lambda: instead(MaskedChunk, _full_padding),
        _padded_target,
        judge=_entered,
        size=lambda n, dim: (n, dim - dim % 8 + 5),
    ),
    node_attack(
        "forged-co-signature",
        "A node sends noise for its signature under the survivors.",
        ("M-11",),
        lambda: instead(SurvivorSignature, _forged),
        as_due,
    ),
)
