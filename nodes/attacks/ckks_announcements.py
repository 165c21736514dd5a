"""What an evil node can do to a round of `ckks` by the key and the distance that it announces."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection
from typing import Any, Final

import msgspec

from nodes.attacks.ckks_node_moves import ckks_node_attack
from nodes.attacks.node_moves import instead
from nodes.attacks.node_stage import Federation, Move
from nodes.attacks.report import Attack
from secagg.ckks.sealing import make_key
from secagg.types import NodeId
from secagg.wire.messages import Announcement, Message

__all__ = ["ANNOUNCEMENT_ATTACKS"]


def _swapped_key(_: Federation, due: Announcement) -> list[Message]:
    key = msgspec.structs.replace(due.key, agreement_key=secrets.token_bytes(32))
    return [msgspec.structs.replace(due, key=key)]


def _others_key(stage: Federation, due: Announcement) -> list[Message]:
    key = msgspec.structs.replace(due.key, node_id=stage.setup.cohort[0])
    return [msgspec.structs.replace(due, key=key)]


class _NoKeys:
    """Keys that nobody can agree on a secret with, signed as they should be."""

    public = (bytes(32), bytes([255]) * 1184)


def _unusable_key(stage: Federation, due: Announcement) -> list[Message]:
    own: Any = stage.own
    nothing: Any = _NoKeys()
    return [msgspec.structs.replace(due, key=make_key(own._setup, own._signer, nothing))]


def _distance(value: float) -> Move:
    def change(_: Federation, due: Announcement) -> list[Message]:
        other: Any = value
        return [msgspec.structs.replace(due, distance=other)]

    return instead(Announcement, change)


def _took_distance(stage: Federation, _: Collection[NodeId]) -> str:
    took = any(
        isinstance(each, Announcement) and each.distance is not None for _, each in stage.taken
    )
    return "the coordinator took a distance that nobody asked for" if took else ""


ANNOUNCEMENT_ATTACKS: Final[tuple[Attack, ...]] = (
    ckks_node_attack(
        "unsigned-key",
        "A node's key is swapped after it was signed.",
        ("H-04",),
        lambda: instead(Announcement, _swapped_key),
    ),
    ckks_node_attack(
        "others-key",
        "A node announces a key in another's name.",
        ("H-04",),
        lambda: instead(Announcement, _others_key),
    ),
    ckks_node_attack(
        "unusable-key",
        "A member announces a key that nobody can seal to.",
        ("H-04",),
        lambda: instead(Announcement, _unusable_key),
    ),
    ckks_node_attack(
        "impossible-distance",
        "A node discloses a distance that is no number.",
        ("H-16", "W-02"),
        lambda: _distance(math.nan),
        weighs=True,
    ),
    ckks_node_attack(
        "greatest-distance",
        "A node discloses the greatest distance there is, to move the others' weights.",
        ("H-11",),
        lambda: _distance(64),
        weighs=True,
    ),
    ckks_node_attack(
        "unasked-distance",
        "A node discloses a distance where none is asked for.",
        ("H-16",),
        lambda: _distance(0),
        judge=_took_distance,
    ),
)
