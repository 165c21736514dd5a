"""What an evil member of the committee can do to a round of `ckks`, and a node that co-signs."""

from __future__ import annotations

import secrets
from typing import Any, Final

import numpy as np

from nodes.attacks.ckks_node_moves import ckks_node_attack
from nodes.attacks.node_moves import instead
from nodes.attacks.node_stage import Federation
from nodes.attacks.report import Attack
from secagg.primitives import packed
from secagg.wire.messages import Message, SumShare, SurvivorSignature

__all__ = ["MEMBER_ATTACKS"]


def _forged(_: Federation, due: SurvivorSignature) -> list[Message]:
    return [SurvivorSignature(due.round_id, secrets.token_bytes(len(due.signature)))]


def _lie(stage: Federation, due: SumShare) -> SumShare:
    terms: Any = stage.own._terms
    rng = np.random.default_rng(secrets.randbits(64))
    share = rng.integers(0, terms.committee.modulus, terms.share_length).astype(np.uint32)
    return SumShare(due.round_id, packed.encode(share, terms.committee.modulus), ())


def _wrong(stage: Federation, due: SumShare) -> list[Message]:
    return [_lie(stage, due)]


def _silent(_: Federation, __: SumShare) -> list[Message]:
    return []


def _malformed(_: Federation, due: SumShare) -> list[Message]:
    return [SumShare(due.round_id, bytes([255]) * len(due.share), ())]


def _no_dealers(_: Federation, due: SumShare) -> list[Message]:
    """Name dealers that are none."""
    return [SumShare(due.round_id, b"", ("node-nobody",))]


def _accusing(stage: Federation, due: SumShare) -> list[Message]:
    return [SumShare(due.round_id, b"", (stage.setup.cohort[0],))]


def _again(stage: Federation, due: SumShare) -> list[Message]:
    return [due, _lie(stage, due)]


MEMBER_ATTACKS: Final[tuple[Attack, ...]] = (
    ckks_node_attack(
        "forged-co-signature",
        "A node sends noise for its signature under the view.",
        ("H-10",),
        lambda: instead(SurvivorSignature, _forged),
    ),
    ckks_node_attack(
        "wrong-answer",
        "A member lies about its share of the sum.",
        ("H-13", "H-14"),
        lambda: instead(SumShare, _wrong),
    ),
    ckks_node_attack(
        "silent-member",
        "A member co-signs and does not answer.",
        ("H-15",),
        lambda: instead(SumShare, _silent),
    ),
    ckks_node_attack(
        "malformed-answer",
        "A member answers with values that are not in the field.",
        ("H-12", "H-13"),
        lambda: instead(SumShare, _malformed),
    ),
    ckks_node_attack(
        "accused-stranger",
        "A member says that the boxes of a node that dealt nothing do not open.",
        ("H-12", "H-13"),
        lambda: instead(SumShare, _no_dealers),
    ),
    ckks_node_attack(
        "accused-dealer",
        "A member says that an honest dealer's box does not open.",
        ("H-13",),
        lambda: instead(SumShare, _accusing),
    ),
    ckks_node_attack(
        "second-answer",
        "A member answers, and then with something else.",
        ("H-13", "H-17"),
        lambda: instead(SumShare, _again),
    ),
)
