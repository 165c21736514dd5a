"""Attacks on `ckks` by what is asked for: which survivors, which weights, of whom and how often."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from nodes.attacks.base_puppet import new_identities
from nodes.attacks.ckks_moves import coordinator_attack, helpers, two_views
from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.ckks_setting import MAX_WEIGHT, ckks_setup, small_committee
from nodes.attacks.coordinator_attacks import halves, without
from nodes.attacks.report import Attack
from secagg.ckks.parameters import choose
from secagg.ckks.views import committee_of
from secagg.types import NodeId
from secagg.wire.messages import CommitteeKeys

__all__ = ["VIEW_ATTACKS"]


def _weighted(_: int) -> Mapping[str, Any]:
    return {"weighs": True}


def _weighted_with_helpers(n: int) -> Mapping[str, Any]:
    return {"weighs": True, **helpers(n)}


def _too_many(n: int) -> Mapping[str, Any]:
    return {"accomplices": 2 * choose(n).cosigners - n}


# --- one view ------------------------------------------------------------------------------------


def _open_one(puppet: CkksPuppet) -> None:
    puppet.until_upload()
    puppet.ask(puppet.view([puppet.victim]))


def _open_few(puppet: CkksPuppet) -> None:
    """Ask for the victim and the accomplices, whose inputs are known."""
    puppet.until_upload()
    puppet.ask(puppet.view([puppet.victim, *puppet.accomplices]))


def _one_hot(puppet: CkksPuppet) -> None:
    puppet.until_upload()
    puppet.ask(dict.fromkeys(puppet.nodes, 0) | {puppet.victim: 1})


def _uneven(puppet: CkksPuppet) -> None:
    """Weigh the victim as much as is allowed, among as few others as are."""
    puppet.until_upload()
    few = puppet.nodes[: puppet.setup.quorum]
    puppet.ask(puppet.view(few) | {puppet.victim: MAX_WEIGHT})


# --- two views -----------------------------------------------------------------------------------


def _two_sets(puppet: CkksPuppet) -> None:
    puppet.until_upload()
    two_views(puppet, puppet.view(), puppet.view(without(puppet.nodes, [puppet.victim])))


def _two_weightings(puppet: CkksPuppet) -> None:
    puppet.until_upload()
    two_views(puppet, puppet.view(), puppet.view() | {puppet.victim: 2})


def _forged(puppet: CkksPuppet) -> None:
    """Make up the co-signatures that are missing."""

    def pad(_: CkksPuppet, signed: dict[NodeId, bytes]) -> list[tuple[NodeId, bytes]]:
        forged = {node: os.urandom(64) for node in puppet.nodes}
        return sorted((forged | signed).items())

    puppet.until_upload()
    fewer = puppet.view(without(puppet.nodes, [puppet.victim]))
    two_views(puppet, puppet.view(), fewer, pad=pad)


def _repeated(puppet: CkksPuppet) -> None:
    """Show an accomplice's co-signature as often as co-signatures are asked for."""

    def pad(_: CkksPuppet, signed: dict[NodeId, bytes]) -> list[tuple[NodeId, bytes]]:
        helper = puppet.accomplices[0]
        return [(helper, signed[helper])] * len(puppet.nodes)

    puppet.until_upload()
    fewer = puppet.view(without(puppet.nodes, [puppet.victim]))
    two_views(puppet, puppet.view(), fewer, pad=pad)


def _asked_twice(puppet: CkksPuppet) -> None:
    puppet.until_upload()
    puppet.finish()
    puppet.ask(puppet.view(without(puppet.nodes, [puppet.victim])))


def _weighed_twice(puppet: CkksPuppet) -> None:
    puppet.until_upload()
    puppet.finish()
    puppet.ask(puppet.view() | {puppet.victim: 2})


# --- two committees ------------------------------------------------------------------------------


def _two_committees(puppet: CkksPuppet) -> None:
    """Split the cohort: each half deals to itself and opens the sum of itself."""
    groups = halves(puppet.nodes)

    def show(node: NodeId, message: CommitteeKeys) -> CommitteeKeys:
        mine = next(group for group in groups if node in group)
        keys = tuple(key for key in message.keys if key.node_id in mine)
        return CommitteeKeys(message.round_id, keys)

    puppet.announce()
    puppet.committee(show)
    for group in groups:
        puppet.ask(puppet.view(group), group)


def _outside_helpers(n: int) -> Mapping[str, Any]:
    """Return the options of a small committee with none of the accomplices in it."""
    terms, bad = small_committee(n, 3, 1), max(2, choose(n).colluders)
    identities = new_identities(n)
    run: dict[str, object] = {"run_id": os.urandom(16)}
    while True:
        changes = run | {"offer_hash": os.urandom(32)}
        setup = ckks_setup(n, 8, identities, terms=terms, changes=changes)
        if not set(setup.cohort[-bad:]) & set(committee_of(setup)):
            return {"terms": terms, "accomplices": bad, "changes": changes}


def _other_committee(puppet: CkksPuppet) -> None:
    """Show the keys of the accomplices, whoever was drawn."""

    def show(_: NodeId, message: CommitteeKeys) -> CommitteeKeys:
        keys = tuple(puppet.tape.keys[helper] for helper in puppet.accomplices)
        return CommitteeKeys(message.round_id, keys[: puppet.committee_size])

    puppet.announce()
    puppet.committee(show)


def _small(n: int) -> Mapping[str, Any]:
    return {"terms": small_committee(n, 3, 1)}


def _outsiders(puppet: CkksPuppet) -> None:
    """Have nodes that were not drawn open what the members were dealt."""
    puppet.until_upload()
    members = committee_of(puppet.setup)
    outside = without(puppet.nodes, members)
    puppet.survivors(dict.fromkeys(puppet.nodes, puppet.view()))
    signed = sorted(puppet.tape.cosigned.items())

    def others(_: NodeId, dealer: NodeId) -> Any:
        receiver = next(member for member in members if member != dealer)
        return puppet.box(receiver, dealer)

    puppet.open(dict.fromkeys(outside, signed), others)


VIEW_ATTACKS: Final[tuple[Attack, ...]] = (
    coordinator_attack(
        "open-one",
        "ask the committee to open the victim's input alone",
        ("H-09", "H-11"),
        _open_one,
    ),
    coordinator_attack(
        "open-few",
        "ask it to open a sum over the victim and the accomplices",
        ("H-09", "H-11"),
        _open_few,
        attacker="coordinator and nodes",
        options=helpers,
    ),
    coordinator_attack(
        "one-hot-weights",
        "weigh all inputs but the victim's by 0",
        ("H-11",),
        _one_hot,
        options=_weighted,
    ),
    coordinator_attack(
        "uneven-weights",
        "weigh the victim's input as much as is allowed, in the smallest sum that is",
        ("H-11",),
        _uneven,
        options=_weighted,
    ),
    coordinator_attack(
        "two-sets",
        "tell half of the nodes that the victim survived, the others that it dropped out",
        ("H-10",),
        _two_sets,
        attacker="coordinator and nodes",
        options=helpers,
    ),
    coordinator_attack(
        "two-weightings",
        "have two halves open the same sum, with different weights",
        ("H-10",),
        _two_weightings,
        attacker="coordinator and nodes",
        options=_weighted_with_helpers,
    ),
    coordinator_attack(
        "too-many-accomplices",
        "two-sets with more accomplices than the round withstands",
        (),
        _two_sets,
        attacker="coordinator and nodes",
        options=_too_many,
        promised=False,
    ),
    coordinator_attack(
        "forged-survivors",
        "two-sets with co-signatures that are made up",
        ("H-10",),
        _forged,
        attacker="coordinator and nodes",
        options=helpers,
    ),
    coordinator_attack(
        "repeated-co-signature",
        "two-sets with one co-signature of an accomplice shown many times",
        ("H-10",),
        _repeated,
        attacker="coordinator and nodes",
        options=helpers,
    ),
    coordinator_attack(
        "asked-twice",
        "ask for another sum after the first is open",
        ("H-12",),
        _asked_twice,
    ),
    coordinator_attack(
        "weighed-twice",
        "ask for the same sum with other weights after it is open",
        ("H-12",),
        _weighed_twice,
        options=_weighted,
    ),
    coordinator_attack(
        "two-committees",
        "have each half of the nodes deal to itself and open a sum of its own",
        ("H-09", "H-10"),
        _two_committees,
    ),
    coordinator_attack(
        "other-committee",
        "name accomplices as the committee",
        ("H-03",),
        _other_committee,
        attacker="coordinator and nodes",
        options=_outside_helpers,
    ),
    coordinator_attack(
        "outsiders",
        "ask nodes that are not in the committee to open what members were dealt",
        ("H-03", "H-05"),
        _outsiders,
        options=_small,
    ),
)
