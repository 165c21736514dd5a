"""Attacks of a malicious coordinator, with and without accomplices, by what it shows and asks.

Each is played twice: by a `Puppet` before the real nodes, and against the semi-honest target.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Final

from nodes.attacks.puppet import Puppet
from nodes.attacks.report import Attack, Played
from nodes.attacks.target_puppet import TargetPuppet
from secagg.masking import views
from secagg.masking.parameters import choose
from secagg.types import NodeId
from secagg.wire.messages import PeerEncapsulations, PeerKeys, PeerShares

__all__ = [
    "COORDINATOR_ATTACKS",
    "halves",
    "new_puppet",
    "new_target",
    "two_views",
    "without",
]


def new_target(n: int, dim: int, seed: int, **options: int) -> TargetPuppet:
    """Return a round of the target."""
    return TargetPuppet(n, dim, seed, rng=os.urandom, **options)


def new_puppet(n: int, dim: int, seed: int, **options: object) -> Puppet:
    """Return a round of real nodes."""
    return Puppet(n, dim, seed, rng=os.urandom, **options)  # type: ignore[arg-type]


def halves(nodes: Collection[NodeId]) -> tuple[tuple[NodeId, ...], tuple[NodeId, ...]]:
    """Return every other node, and the rest."""
    ordered = tuple(sorted(nodes))
    return ordered[::2], ordered[1::2]


def without(nodes: Collection[NodeId], gone: Collection[NodeId]) -> tuple[NodeId, ...]:
    """Return `nodes` but those that are `gone`, sorted."""
    return tuple(sorted(set(nodes) - set(gone)))


# --- dropouts and views ------------------------------------------------------------------------


def _both_shares(n: int, dim: int, seed: int) -> Played:
    """Split the nodes in two views; t is as low as a complete graph allows, so c alone is left."""
    stage = new_target(n, dim, seed)
    stage.run()
    victim = stage.names[0]
    stage.ask(stage.names, active=stage.names, dead=[victim])
    puppet = _low(n, dim, seed)
    puppet.until_upload()
    two_views(puppet, [puppet.victim])
    return puppet.judge(stage.gained())


def _low(n: int, dim: int, seed: int) -> Puppet:
    accomplices = max(1, choose(n).colluders)
    return new_puppet(n, dim, seed, accomplices=accomplices, changes={"threshold": n // 2 + 1})


def two_views(
    puppet: Puppet, gone: Collection[NodeId], *, padding: Mapping[NodeId, bytes] | None = None
) -> None:
    """Tell half of the honest nodes that all survived, the other half that `gone` did not.

    Args:
        puppet: The round, inputs in.
        gone: Nodes of whom both secrets are wanted.
        padding: Signatures to show for those who did not sign a view.
    """
    everybody = puppet.nodes
    fewer = without(everybody, gone)
    second, first = halves(without(everybody, [*puppet.accomplices, *gone]))
    first = tuple(sorted({*first, *gone}))
    puppet.survivors(dict.fromkeys(first, everybody) | dict.fromkeys(second, fewer))
    cosigned = dict(puppet.tape.cosigned)
    for group, members in ((first, everybody), (second, fewer)):
        signed = {node: mark for node, mark in (padding or {}).items() if node in members}
        signed |= {node: cosigned[node] for node in group if node in cosigned}
        for helper in puppet.accomplices:  # they sign every view they are asked to
            signed[helper] = _sign_view(puppet, puppet.clients[helper], members)
        puppet.tape.cosigned = signed
        puppet.unmask(dict.fromkeys(group, tuple(signed)))
    puppet.tape.cosigned = cosigned


def _sign_view(puppet: Puppet, client: object, members: tuple[NodeId, ...]) -> bytes:
    held = vars(client)
    view = views.view_digest(held["_sharers_digest"], members)
    return views.sign_survivors(puppet.setup, held["_signer"], view)


def _split_views(n: int, dim: int, seed: int) -> Played:
    """Show either half forged co-signatures of the other."""
    stage = new_target(n, dim, seed)
    stage.run()
    gone = stage.names[0]
    stage.ask(stage.names, active=stage.names, dead=[])
    stage.ask(stage.names, active=without(stage.names, [gone]), dead=[gone])
    puppet = _low(n, dim, seed)
    puppet.until_upload()
    two_views(puppet, [puppet.victim], padding={node: os.urandom(64) for node in puppet.nodes})
    return puppet.judge(stage.gained())


def _too_many(n: int, dim: int, seed: int) -> Played:
    """Let so many collude that two sets of co-signers need not share an honest node."""
    setting = choose(n)
    enough = 2 * setting.cosigners - n
    stage = new_target(n, dim, seed, accomplices=enough)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[stage.names[0]])
    puppet = new_puppet(n, dim, seed, accomplices=enough)
    puppet.until_upload()
    two_views(puppet, [puppet.victim])
    return puppet.judge(stage.gained())


def _second_request(n: int, dim: int, seed: int) -> Played:
    stage = new_target(n, dim, seed)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[])
    stage.ask(stage.names, active=[], dead=[stage.names[0]])
    puppet = new_puppet(n, dim, seed)
    puppet.until_upload()
    puppet.finish()
    fewer = without(puppet.nodes, [puppet.victim])
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    return puppet.judge(stage.gained())


def _late_upload(n: int, dim: int, seed: int) -> Played:
    """Name a node as dropped whose upload has come: its keys are revealed by right."""
    stage = new_target(n, dim, seed)
    stage.run()
    victim = stage.names[0]
    stage.ask(stage.names, active=without(stage.names, [victim]), dead=[victim])
    puppet = new_puppet(n, dim, seed, accomplices=1)
    puppet.until_upload()
    fewer = without(puppet.nodes, [puppet.victim])
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    return puppet.judge(stage.gained())


def _split_agreed(n: int, dim: int, seed: int) -> Played:
    """Tell the victim that few agreed, and the others that all did."""
    stage = new_target(n, dim, seed, accomplices=1)
    stage.run(masked_with={stage.names[0]: stage.accomplices})
    stage.ask(stage.names, active=stage.names, dead=stage.accomplices)
    puppet = new_puppet(n, dim, seed, accomplices=1)
    puppet.adverts()
    puppet.keys()

    few = {puppet.victim, *puppet.nodes[1 : puppet.setup.quorum - 1], *puppet.accomplices}

    def agreed(node: NodeId, message: PeerEncapsulations) -> PeerEncapsulations:
        if node != puppet.victim:
            return message
        capsules = tuple(each for each in message.capsules if each[0] in few)
        return PeerEncapsulations(message.round_id, tuple(sorted(few)), capsules)

    def shared(node: NodeId, message: PeerShares) -> PeerShares:
        among = few if node == puppet.victim else set(message.sharers)
        boxes = tuple(box for box in message.boxes if box[0] in among)
        return PeerShares(message.round_id, tuple(sorted(among)), boxes)

    puppet.agreement(agreed)
    puppet.sharing(shared)
    puppet.finish()
    return puppet.judge(stage.gained())


def _split_adverts(n: int, dim: int, seed: int) -> Played:
    """Tell the victim that few advertised keys, and the others that all did."""
    stage = new_target(n, dim, seed, accomplices=1, threshold=2)
    victim = stage.names[0]
    around: dict[NodeId, Collection[NodeId]] = {
        name: without(stage.names, [name]) for name in stage.names
    }
    stage.run(neighbours=around | {victim: stage.accomplices})
    stage.ask(stage.names, active=stage.names, dead=stage.accomplices)
    puppet = new_puppet(n, dim, seed, accomplices=1)
    puppet.adverts()

    def show(node: NodeId, message: PeerKeys) -> PeerKeys:
        if node != puppet.victim:
            return message
        few = {node, *puppet.nodes[1 : puppet.setup.quorum - 1], *puppet.accomplices}
        listed = tuple(each for each in message.digests if each[0] in few)
        shown = tuple(puppet.tape.adverts[each] for each in sorted(few - {node}))
        return PeerKeys(message.round_id, listed, message.coins, shown)

    puppet.keys(show)
    puppet.agreement()
    puppet.sharing()
    puppet.finish()
    return puppet.judge(stage.gained())


COORDINATOR_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "both-shares",
        "coordinator and nodes",
        "tell some nodes that the victim survived, the others that it dropped out",
        ("M-11", "M-12"),
        _both_shares,
    ),
    Attack(
        "split-survivors",
        "coordinator and nodes",
        "open two sums that differ by one node, with forged co-signatures",
        ("M-11",),
        _split_views,
    ),
    Attack(
        "too-many-accomplices",
        "coordinator and nodes",
        "the same with more accomplices than the round withstands",
        (),
        _too_many,
        promised=False,
    ),
    Attack(
        "second-request",
        "coordinator",
        "ask everybody to unmask a second time, for other survivors",
        ("M-13", "M-28"),
        _second_request,
    ),
    Attack(
        "late-upload",
        "coordinator and nodes",
        "name a node as dropped whose upload has come",
        ("M-12", "M-23"),
        _late_upload,
    ),
    Attack(
        "split-adverts",
        "coordinator and nodes",
        "tell the victim that few nodes advertised keys",
        ("M-26", "M-07"),
        _split_adverts,
    ),
    Attack(
        "split-agreed",
        "coordinator and nodes",
        "tell the victim that few nodes agreed on keys",
        ("M-24", "M-26"),
        _split_agreed,
    ),
)
