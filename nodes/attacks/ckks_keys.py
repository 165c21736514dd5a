"""Attacks on `ckks` with keys, boxes and messages that are not what they should be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np

from nodes.attacks.ckks_moves import Move, coordinator_attack, helpers
from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.ckks_tape import Dealt
from nodes.attacks.coordinator_attacks import halves, without
from nodes.attacks.report import NOTHING, Attack, Played
from secagg.ckks.sealing import seal_box
from secagg.ckks.views import terms_of
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.types import NodeId
from secagg.wire.messages import CommitteeKeys, SealingKey

__all__ = ["KEY_ATTACKS"]

_TWO_DROPOUTS: Final = 6
"""Least nodes of which two may be missing from a sum."""


# --- keys ----------------------------------------------------------------------------------------


def _swap(*names: str) -> Move:
    """Return the move that puts keys of the coordinator's in these fields of others' keys."""

    def move(puppet: CkksPuppet) -> None:
        puppet.announce()

        def forged(key: SealingKey) -> SealingKey:
            if key.node_id == puppet.victim:
                return key
            own = HybridKeys(os.urandom(32))
            puppet.keys_held.setdefault(key.node_id, []).append(own)
            fields = dict(zip(("agreement_key", "kem_key"), own.public, strict=True))
            return msgspec.structs.replace(key, **{name: fields[name] for name in names})

        puppet.committee(_to_victim(puppet, forged))
        puppet.finish()

    return move


def _to_victim(
    puppet: CkksPuppet, change: Callable[[SealingKey], SealingKey]
) -> Callable[[NodeId, CommitteeKeys], CommitteeKeys]:
    def show(node: NodeId, message: CommitteeKeys) -> CommitteeKeys:
        if node != puppet.victim:
            return message
        return CommitteeKeys(message.round_id, tuple(change(key) for key in message.keys))

    return show


def _replayed_keys(puppet: CkksPuppet) -> None:
    """Show the victim others' keys of an earlier round, which were read from their memory since."""
    earlier = _earlier(puppet)
    earlier.announce()
    old = {node: [vars(role)["_keys"]] for node, role in earlier.roles.items()}
    puppet.announce()
    puppet.keys_held |= {node: old[node] for node in puppet.nodes if node != puppet.victim}

    def past(key: SealingKey) -> SealingKey:
        return key if key.node_id == puppet.victim else earlier.tape.keys[key.node_id]

    puppet.committee(_to_victim(puppet, past))
    puppet.finish()


def _earlier(puppet: CkksPuppet, *, same_inputs: bool = False) -> CkksPuppet:
    """Return a round before, of the same nodes with other inputs or the same ones."""
    before = puppet.setup.round_id - 1
    return CkksPuppet(
        len(puppet.nodes),
        puppet.setup.dim,
        puppet.seed if same_inputs else before,
        trusting=puppet.trusting,
        accomplices=len(puppet.accomplices),
        identities=dict(puppet.identities),
        changes={"round_id": before, "run_id": puppet.setup.run_id},
    )


def _next_round(_: int) -> Mapping[str, Any]:
    return {"changes": {"round_id": 2}}


def _next_with_helpers(n: int) -> Mapping[str, Any]:
    return {**_next_round(n), **helpers(n)}


# --- boxes ---------------------------------------------------------------------------------------


def _bystanders(puppet: CkksPuppet) -> tuple[NodeId, ...]:
    """Return honest members whose inputs are left out: their answers hold no secrets of their own.

    The accomplices' shares of the victim's secret and these answers are enough to open it.
    """
    return puppet.nodes[1 : 1 + terms_of(puppet.setup).committee.pack]


def _with_boxes(puppet: CkksPuppet, deal: Callable[[NodeId, NodeId], Dealt]) -> None:
    """Deal the bystanders `deal` for all but the victim."""
    apart = _bystanders(puppet)

    def given(member: NodeId, dealer: NodeId) -> Dealt:
        real = dealer == puppet.victim or member not in apart
        return puppet.box(member, dealer) if real else deal(member, dealer)

    puppet.ask(puppet.view(without(puppet.nodes, apart)), deal=given)


def _replaced_shares(puppet: CkksPuppet) -> None:
    """Deal shares of the coordinator's own for all nodes but one."""
    puppet.until_upload()
    terms, own = terms_of(puppet.setup), HybridKeys(os.urandom(32))
    zeros = np.zeros(terms.share_length, dtype=np.uint32)
    share = packed.encode(zeros, terms.committee.modulus)

    def deal(member: NodeId, dealer: NodeId) -> Dealt:
        key, right = puppet.tape.keys[member], puppet.box(member, dealer)
        box = seal_box(puppet.setup_at(member), own, dealer, key, share)
        _, kem_digest, signature, _ = right.message
        return replace(right, message=(own.public[0], kem_digest, signature, box), share=zeros)

    _with_boxes(puppet, deal)


def _moved_boxes(puppet: CkksPuppet) -> None:
    """Deal the victim's box in the name of every node."""
    puppet.until_upload()
    _with_boxes(puppet, lambda member, _: puppet.box(member, puppet.victim))


def _replayed_boxes(puppet: CkksPuppet) -> None:
    """Deal what others sealed in a round before, in which the sum of just these was opened."""
    earlier = puppet.earlier = _earlier(puppet)
    earlier.until_upload()
    gone = [earlier.victim, *_bystanders(earlier)]
    earlier.ask(earlier.view(without(earlier.nodes, gone)))
    puppet.until_upload()
    _with_boxes(puppet, earlier.box)


def _replayed_ciphertext(puppet: CkksPuppet) -> None:
    """Put the victim's upload of a round before, in which it was left out, into the sum."""
    earlier = puppet.earlier = _earlier(puppet, same_inputs=True)
    earlier.until_upload()
    puppet.until_upload()
    view = puppet.view(puppet.nodes)
    others = without(puppet.nodes, [puppet.victim])

    def deal(member: NodeId, dealer: NodeId) -> Dealt:
        return (earlier if dealer == puppet.victim else puppet).box(member, dealer)

    puppet.ask(view, others, deal=deal)


# --- offers --------------------------------------------------------------------------------------


def _different_offers(n: int, dim: int, seed: int) -> Played:
    """Show half of the nodes an offer of an older model: their updates would enter the same sum."""
    behind: tuple[NodeId, ...] = ()
    ends: list[tuple[CkksPuppet, str]] = []
    for trusting in (True, False):
        names = [f"node-{index:02d}" for index in range(n)]
        behind, _ = halves(names)
        offers = dict.fromkeys(behind, b"\2" * 32)
        puppet = CkksPuppet(n, dim, seed, trusting=trusting, offers=offers)
        puppet.until_upload()
        puppet.finish()
        mixed = puppet.holdings().released(puppet.inputs)
        gained = f"a sum over {mixed} nodes, {len(behind)} of them on another model, unnoticed"
        ends.append((puppet, gained if mixed == n else NOTHING))
    puppet, here = ends[-1]
    played = puppet.judge(ends[0][1])
    return played if played.revealed else replace(played, here=here)


KEY_ATTACKS: Final[tuple[Attack, ...]] = (
    coordinator_attack(
        "swapped-keys",
        "show the victim keys of its own for those of the committee",
        ("H-04",),
        _swap("agreement_key", "kem_key"),
    ),
    coordinator_attack(
        "swapped-x25519-keys",
        "replace the X25519 keys alone",
        ("H-04", "H-05"),
        _swap("agreement_key"),
    ),
    coordinator_attack(
        "swapped-kem-keys",
        "replace the ML-KEM keys alone",
        ("H-04", "H-05"),
        _swap("kem_key"),
    ),
    coordinator_attack(
        "replayed-keys",
        "show the victim keys of an earlier round, read from the members' memory since",
        ("H-04", "H-06"),
        _replayed_keys,
        options=_next_round,
    ),
    coordinator_attack(
        "replaced-shares",
        "deal shares of its own for all nodes but the victim",
        ("H-05",),
        _replaced_shares,
        attacker="coordinator and nodes",
        options=helpers,
    ),
    coordinator_attack(
        "moved-boxes",
        "deal the victim's box in everybody's name",
        ("H-05",),
        _moved_boxes,
        attacker="coordinator and nodes",
        options=helpers,
    ),
    coordinator_attack(
        "replayed-boxes",
        "deal the boxes of an earlier round, in which the others' sum was opened",
        ("H-05", "H-06"),
        _replayed_boxes,
        attacker="coordinator and nodes",
        options=_next_with_helpers,
        least=_TWO_DROPOUTS,
    ),
    coordinator_attack(
        "replayed-ciphertext",
        "put the victim's upload of an earlier round into the sum of this one",
        ("H-05", "H-06"),
        _replayed_ciphertext,
        options=_next_round,
    ),
    Attack(
        "different-offers",
        "coordinator",
        "show half of the nodes an offer of another model",
        ("H-04", "H-06"),
        _different_offers,
    ),
)
