"""What an evil node can do to a round of `ckks` by its shares and its ciphertext."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any, Final

import msgspec
import numpy as np

from nodes.attacks.ckks_node_moves import (
    blocks_in,
    ckks_node_attack,
    encrypted,
    keys_shown,
    rebatched,
    resealed,
    uploaded,
)
from nodes.attacks.node_moves import instead
from nodes.attacks.node_stage import Federation, Move
from nodes.attacks.report import Attack
from secagg.ckks import rlwe
from secagg.ckks.coefficients import blocks_for
from secagg.ckks.parameters import CkksParameters
from secagg.primitives import packed
from secagg.types import NodeId
from secagg.wire.messages import (
    UPLOAD_SLOTS,
    CipherChunk,
    CommitteeKeys,
    Message,
    SealedSecret,
)

__all__ = ["UPLOAD_ATTACKS"]

_SOME: Final = 64
"""Coordinates of which one at least has a sum of the others that is not negative."""
_TWO_CHUNKS: Final = 10_000
"""Coordinates that take two chunks at least."""


# --- shares


def _other_shares(
    stage: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
) -> list[Message]:
    """Deal shares of another secret than the ciphertext is under."""
    own: Any = stage.own
    secret = rlwe.Secret.fresh(own._ring, own._terms.ring.secret_terms)
    return [*rebatched(boxes, own._boxes(secret, keys_shown(stage))), *chunks]


def _uniform(stage: Federation) -> packed.Share:
    terms: CkksParameters = stage.own._terms
    rng = np.random.default_rng(secrets.randbits(64))
    return rng.integers(0, terms.committee.modulus, terms.share_length).astype(np.uint32)


def _scattered(
    stage: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
) -> list[Message]:
    """Deal everybody shares that lie on no polynomial."""
    return [*resealed(stage, boxes, lambda _: _uniform(stage)), *chunks]


def _one_wrong(
    stage: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
) -> list[Message]:
    """Deal one member a wrong share: its answer will be wrong, and it looks like a liar."""
    victim = stage.setup.cohort[0]
    made = resealed(stage, boxes, lambda node: _uniform(stage) if node == victim else None)
    return [*made, *chunks]


def _shut(count: int | None) -> Move:
    """Return the move that deals noise for the first `count` boxes, or for all of them."""

    def change(
        _: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
    ) -> list[Message]:
        made: list[Message] = []
        for each in boxes:
            noise = tuple(
                secrets.token_bytes(len(box)) if count is None or each.start + at < count else box
                for at, box in enumerate(each.boxes)
            )
            made.append(SealedSecret(each.round_id, each.start, noise))
        return [*made, *chunks]

    return uploaded(change)


# --- ciphertexts


def _beyond_modulus(_: Federation, chunk: CipherChunk) -> list[Message]:
    return [msgspec.structs.replace(chunk, data=bytes([255]) * len(chunk.data))]


def _short(_: Federation, chunk: CipherChunk) -> list[Message]:
    return [msgspec.structs.replace(chunk, data=chunk.data[:-1])]


def _noise(stage: Federation, chunk: CipherChunk) -> list[Message]:
    ring: Any = stage.own._ring
    blocks = blocks_in(chunk, ring)
    rng = np.random.default_rng(secrets.randbits(64))
    cipher = rng.integers(0, ring.modulus, (blocks, ring.degree), dtype=np.uint64)
    return [msgspec.structs.replace(chunk, data=rlwe.pack(cipher, ring))]


def _values(of: str) -> Move:
    """Return the move that encrypts values beyond the bound: "impossible" ones, or "hidden"."""

    def change(
        stage: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
    ) -> list[Message]:
        terms, dim = stage.own._terms, stage.setup.dim
        bound = 1 << (terms.value_bits - 1)
        value = len(stage.setup.cohort) * bound if of == "impossible" else bound + 1
        blocks, degree = blocks_for(dim, terms.ring), terms.ring.degree
        message = np.zeros(blocks * degree, dtype=np.int64)
        message[:dim] = value << terms.ring.noise_bits
        sealed, made = encrypted(stage, message.reshape(blocks, degree), chunks)
        return [*rebatched(boxes, sealed), *made]

    return uploaded(change)


# --- order


def _reversed(_: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]) -> list[Message]:
    return [*boxes, *reversed(chunks)]


def _chunks_first(
    _: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
) -> list[Message]:
    return [*chunks, *boxes]


def _boxes_left_out(
    _: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]
) -> list[Message]:
    last = boxes[-1]
    return [*boxes[:-1], msgspec.structs.replace(last, boxes=last.boxes[:-1]), *chunks]


def _twice(_: Federation, boxes: list[SealedSecret], chunks: list[CipherChunk]) -> list[Message]:
    return [*boxes, *chunks, *boxes, *chunks]


def _out_of_turn() -> Move:
    """Upload the boxes as soon as the keys are known, and all when its turn comes."""

    def move(stage: Federation, got: Message | None, due: list[Message]) -> list[Message]:
        return list(stage.own._upload[:1]) if isinstance(got, CommitteeKeys) else due

    return move


def _entered(stage: Federation, nodes: Collection[NodeId]) -> str:
    return "an upload that is not in its one form entered the sum" if stage.evil in nodes else ""


UPLOAD_ATTACKS: Final[tuple[Attack, ...]] = (
    ckks_node_attack(
        "malformed-ciphertext",
        "A node's ciphertext has residues beyond the modulus.",
        ("H-08",),
        lambda: instead(CipherChunk, _beyond_modulus),
        judge=_entered,
    ),
    ckks_node_attack(
        "short-ciphertext",
        "A node's ciphertext is a byte short.",
        ("H-08",),
        lambda: instead(CipherChunk, _short),
        judge=_entered,
    ),
    ckks_node_attack(
        "noise-ciphertext",
        "A node uploads noise for its ciphertext.",
        ("H-14",),
        lambda: instead(CipherChunk, _noise),
        costs=None,
    ),
    ckks_node_attack(
        "impossible-values",
        "A node encrypts values that no sum could have.",
        ("H-14",),
        lambda: _values("impossible"),
        costs=None,
        size=lambda n, dim: (n, max(dim, _SOME)),
    ),
    ckks_node_attack(
        "values-over-bound",
        "A node encrypts values just over the bound, which others' inputs hide.",
        (),
        lambda: _values("hidden"),
        promised=False,
    ),
    ckks_node_attack(
        "other-shares",
        "A node deals shares of another secret than its ciphertext is under.",
        ("H-14",),
        lambda: uploaded(_other_shares),
        costs=None,
    ),
    ckks_node_attack(
        "scattered-shares",
        "A node deals shares that fit no secret.",
        ("H-13", "H-14"),
        lambda: uploaded(_scattered),
        costs=None,
    ),
    ckks_node_attack(
        "framed-member",
        "A node deals one member a share that does not fit the others, so that it seems to lie.",
        ("H-13",),
        lambda: uploaded(_one_wrong),
    ),
    ckks_node_attack(
        "shut-box",
        "A node seals noise for one member.",
        ("H-12", "H-13"),
        lambda: _shut(1),
    ),
    ckks_node_attack(
        "shut-boxes",
        "A node seals noise for every member.",
        ("H-12", "H-14"),
        lambda: _shut(None),
        costs=None,
    ),
    ckks_node_attack(
        "boxes-left-out",
        "A node leaves a member without its share.",
        ("H-08",),
        lambda: uploaded(_boxes_left_out),
        judge=_entered,
    ),
    ckks_node_attack(
        "ciphertext-first",
        "A node sends its ciphertext before its shares.",
        ("H-08",),
        lambda: uploaded(_chunks_first),
        judge=_entered,
    ),
    ckks_node_attack(
        "reordered-chunks",
        "A node sends the last chunk first.",
        ("H-08",),
        lambda: uploaded(_reversed),
        size=lambda n, dim: (n, max(dim, _TWO_CHUNKS)),
    ),
    ckks_node_attack(
        "submits-twice",
        "A node uploads twice.",
        ("H-08", "H-17"),
        lambda: uploaded(_twice),
    ),
    ckks_node_attack(
        "out-of-turn-upload",
        "A node uploads before its turn, to make the coordinator hold more.",
        ("H-08",),
        _out_of_turn,
        size=lambda n, dim: (max(n, UPLOAD_SLOTS + 2), dim),
        last=True,
    ),
)
