"""How an attack of one node on `ckks` is put together: one move, in two federations."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.ckks_setting import ckks_setup
from nodes.attacks.ckks_trusting import TRUSTING
from nodes.attacks.node_stage import Federation, Judge, Move
from nodes.attacks.report import Attack, Played
from nodes.ephemeral import EphemeralIdentity
from secagg.ckks import rlwe
from secagg.ckks.sealing import seal_box
from secagg.ckks.views import elements_seed
from secagg.primitives import packed
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.types import NodeId
from secagg.wire.messages import CipherChunk, CommitteeKeys, Message, SealedSecret, SealingKey

__all__ = [
    "blocks_in",
    "ckks_node_attack",
    "encrypted",
    "keys_shown",
    "make_ckks_setup",
    "rebatched",
    "resealed",
    "uploaded",
]

_AMONG: Final = 1
"""Place in the cohort; its answer is among those that the target combines, however few."""


def make_ckks_setup(
    n: int, dim: int, *, weighs: bool = False
) -> tuple[RoundSetup, dict[NodeId, EphemeralIdentity]]:
    """Return a round of `n` nodes with terms from `choose`, and who signs."""
    width = len(str(n - 1))
    names = [f"node-{index:0{width}d}" for index in range(n)]
    parties = {node: EphemeralIdentity(node) for node in (*names, COORDINATOR)}
    return ckks_setup(n, dim, parties, weighs=weighs), parties


def ckks_node_attack(
    name: str,
    summary: str,
    rules: tuple[str, ...],
    move: Callable[[], Move],
    *,
    judge: Judge | None = None,
    costs: Collection[NodeId] | None = (),
    size: Callable[[int, int], tuple[int, int]] = lambda n, dim: (n, dim),
    last: bool = False,
    weighs: bool = False,
    promised: bool = True,
) -> Attack:
    """Return the attack of one node that makes `move`.

    Args:
        name: Of the attack.
        summary: Of the attack.
        rules: That stop it.
        move: Makes the move anew for each play.
        judge: Finds what only this attack can gain.
        costs: As for `Federation`: None where the specification owns that the round may be lost.
        size: Takes nodes and coordinates to those that the attack needs.
        last: The evil node is the last of the cohort.
        weighs: The coordinator weighs the nodes.
        promised: Whether the scheme promises to withstand it.
    """

    def play(n: int, dim: int, seed: int) -> Played:
        ends = ""
        for scheme in (TRUSTING, SCHEMES["ckks"]):
            setup, parties = make_ckks_setup(*size(n, dim), weighs=weighs)
            evil = setup.cohort[-1 if last else _AMONG]
            stage = Federation(
                setup, parties, seed=seed, evil=evil, move=move(), costs=costs, scheme=scheme
            )
            played = stage.play(ends, judge)
            ends = played.here
        return played

    return Attack(name, "node", summary, rules, play, promised)


# --- an upload of the attacker's making


def keys_shown(stage: Federation) -> tuple[SealingKey, ...]:
    """Return the members' keys as the evil node was shown them."""
    shown = [message for _, message in stage.log if isinstance(message, CommitteeKeys)]
    return shown[-1].keys


def uploaded(
    change: Callable[[Federation, list[SealedSecret], list[CipherChunk]], list[Message]],
) -> Move:
    """Return the move that gives another upload than is due."""

    def move(stage: Federation, _: Message | None, due: list[Message]) -> list[Message]:
        boxes = [message for message in due if isinstance(message, SealedSecret)]
        chunks = [message for message in due if isinstance(message, CipherChunk)]
        return change(stage, boxes, chunks) if chunks else due

    return move


def resealed(
    stage: Federation, due: list[SealedSecret], share_for: Callable[[NodeId], packed.Share | None]
) -> list[SealedSecret]:
    """Return the boxes with other shares in them; None leaves a box as it is."""
    own: Any = stage.own
    receivers = [key for key in keys_shown(stage) if key.node_id != own._me]
    boxes = [box for message in due for box in message.boxes]
    for at, key in enumerate(receivers):
        share = share_for(key.node_id)
        if share is not None:
            data = packed.encode(share, own._terms.committee.modulus)
            boxes[at] = seal_box(own._setup, own._own_keys, own._me, key, data)
    return rebatched(due, boxes)


def rebatched(due: list[SealedSecret], boxes: list[bytes]) -> list[SealedSecret]:
    """Return other boxes in the same messages."""
    return [
        SealedSecret(each.round_id, each.start, tuple(boxes[each.start :][: len(each.boxes)]))
        for each in due
    ]


def encrypted(
    stage: Federation, message: NDArray[np.int64], due: list[CipherChunk]
) -> tuple[list[bytes], list[Message]]:
    """Return the boxes and chunks of another message under a secret of its own."""
    own: Any = stage.own
    secret = rlwe.Secret.fresh(own._ring, own._terms.ring.secret_terms)
    boxes = own._boxes(secret, keys_shown(stage))
    cipher = secret.encrypt(
        message, elements_seed(own._setup), error_terms=own._terms.ring.error_terms
    )
    chunks: list[Message] = []
    start = 0
    for each in due:
        end = start + blocks_in(each, own._ring)
        chunks.append(
            CipherChunk(each.round_id, each.index, rlwe.pack(cipher[start:end], own._ring))
        )
        start = end
    return boxes, chunks


def blocks_in(chunk: CipherChunk, ring: rlwe.Ring) -> int:
    """Return how many blocks a chunk holds."""
    return len(chunk.data) // rlwe.packed_size(1, ring)
