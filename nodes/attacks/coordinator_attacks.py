"""Attacks of a malicious coordinator, with and without accomplices among the nodes.

Each is played twice: by a `Puppet` before the real nodes, and against the semi-honest target.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Final

import numpy as np

from nodes.attacks.arc_attack import cut_arc
from nodes.attacks.knowledge import Upload, pair_id
from nodes.attacks.puppet import Puppet
from nodes.attacks.report import Attack, Played
from nodes.attacks.semi_honest import PublicKeys, expand, pair_seed, seal_key
from nodes.attacks.target import TargetStage
from secagg import ring
from secagg.masking import pairs, views
from secagg.masking.adverts import advert_digest
from secagg.primitives import aead, agreement, kem, shamir
from secagg.types import NodeId
from secagg.wire.messages import (
    KeyAdvert,
    PairCapsule,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
)

__all__ = ["COORDINATOR_ATTACKS"]


def _target(n: int, dim: int, seed: int, **options: int) -> TargetStage:
    return TargetStage(n, dim, seed, rng=os.urandom, **options)


def _puppet(n: int, dim: int, seed: int, **options: object) -> Puppet:
    return Puppet(n, dim, seed, rng=os.urandom, **options)  # type: ignore[arg-type]


def _until_upload(puppet: Puppet) -> None:
    puppet.adverts()
    puppet.keys()
    puppet.agreement()
    puppet.sharing()


def _halves(nodes: Collection[NodeId]) -> tuple[tuple[NodeId, ...], tuple[NodeId, ...]]:
    ordered = tuple(sorted(nodes))
    return ordered[::2], ordered[1::2]


def _without(nodes: Collection[NodeId], gone: Collection[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(set(nodes) - set(gone)))


# --- dropouts and views ------------------------------------------------------------------------


def _both_shares(n: int, dim: int, seed: int) -> Played:
    stage = _target(n, dim, seed)
    stage.run()
    victim = stage.names[0]
    stage.ask(stage.names, active=stage.names, dead=[victim])
    puppet = _puppet(n, dim, seed, accomplices=_accomplices(n))
    _until_upload(puppet)
    _two_views(puppet, [puppet.victim])
    return puppet.judge(stage.gained())


def _accomplices(n: int) -> int:
    """Return how many nodes side with the attacker: fewer than a third."""
    return max(1, (n - 1) // 3)


def _two_views(puppet: Puppet, gone: Collection[NodeId]) -> None:
    """Tell half of the honest nodes that all survived, the other half that `gone` did not."""
    everybody = puppet.nodes
    fewer = _without(everybody, gone)
    honest = _without(everybody, [*puppet.accomplices, *gone])
    first, second = _halves(honest)
    first = tuple(sorted({*first, *gone}))
    views = dict.fromkeys(first, everybody) | dict.fromkeys(second, fewer)
    puppet.survivors(views)
    helpers = puppet.accomplices
    for group, members in ((first, everybody), (second, fewer)):
        signed = {each: puppet.tape.cosigned[each] for each in group if each in views}
        for helper in helpers:  # accomplices sign every view they are asked to
            client = puppet.clients[helper]
            signed[helper] = _sign_view(puppet, client, members)
        kept = dict(puppet.tape.cosigned)
        puppet.tape.cosigned = signed
        puppet.unmask(dict.fromkeys(group, tuple(signed)))
        puppet.tape.cosigned = kept


def _sign_view(puppet: Puppet, client: object, members: tuple[NodeId, ...]) -> bytes:
    held = vars(client)
    view = views.view_digest(held["_sharers_digest"], members)
    return views.sign_survivors(puppet.setup, held["_signer"], view)


def _split_views(n: int, dim: int, seed: int) -> Played:
    stage = _target(n, dim, seed)
    stage.run()
    gone = stage.names[0]
    stage.ask(stage.names, active=stage.names, dead=[])
    stage.ask(stage.names, active=_without(stage.names, [gone]), dead=[gone])
    puppet = _puppet(n, dim, seed)
    _until_upload(puppet)
    _two_views(puppet, [puppet.victim])
    return puppet.judge(stage.gained())


def _second_request(n: int, dim: int, seed: int) -> Played:
    stage = _target(n, dim, seed)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[])
    stage.ask(stage.names, active=[], dead=[stage.names[0]])
    puppet = _puppet(n, dim, seed)
    _until_upload(puppet)
    puppet.finish()
    fewer = _without(puppet.nodes, [puppet.victim])
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    return puppet.judge(stage.gained())


def _late_upload(n: int, dim: int, seed: int) -> Played:
    """Name a node as dropped whose upload has come: its keys are revealed by right."""
    stage = _target(n, dim, seed)
    stage.run()
    victim = stage.names[0]
    stage.ask(stage.names, active=_without(stage.names, [victim]), dead=[victim])
    puppet = _puppet(n, dim, seed, accomplices=1)
    _until_upload(puppet)
    fewer = _without(puppet.nodes, [puppet.victim])
    puppet.survivors(dict.fromkeys(fewer, fewer))
    puppet.unmask(dict.fromkeys(fewer, fewer))
    return puppet.judge(stage.gained())


def _split_sharers(n: int, dim: int, seed: int) -> Played:
    """Tell the victim that only an accomplice shared its secrets, so that it masks with few."""
    stage = _target(n, dim, seed, accomplices=1)
    victim = stage.names[0]
    stage.run(masked_with={victim: stage.accomplices})
    stage.ask(stage.names, active=stage.names, dead=stage.accomplices)
    puppet = _puppet(n, dim, seed, accomplices=1)
    puppet.adverts()
    puppet.keys()
    puppet.agreement()

    def show(node: NodeId, message: PeerShares) -> PeerShares:
        if node != puppet.victim:
            return message
        few = tuple(sorted({node, *puppet.nodes[1 : puppet.setup.quorum - 1], *puppet.accomplices}))
        boxes = tuple(box for box in message.boxes if box[0] in few)
        return PeerShares(message.round_id, few, boxes)

    puppet.sharing(show)
    puppet.finish()
    return puppet.judge(stage.gained())


def _split_agreed(n: int, dim: int, seed: int) -> Played:
    """Tell the victim that few agreed, and the others that all did."""
    stage = _target(n, dim, seed, accomplices=1)
    stage.run(masked_with={stage.names[0]: stage.accomplices})
    stage.ask(stage.names, active=stage.names, dead=stage.accomplices)
    puppet = _puppet(n, dim, seed, accomplices=1)
    puppet.adverts()
    puppet.keys()

    def show(node: NodeId, message: PeerEncapsulations) -> PeerEncapsulations:
        if node != puppet.victim:
            return message
        few = tuple(sorted({node, *puppet.nodes[1 : puppet.setup.quorum - 1], *puppet.accomplices}))
        capsules = tuple(each for each in message.capsules if each[0] in few)
        return PeerEncapsulations(message.round_id, few, capsules)

    puppet.agreement(show)
    puppet.sharing()
    puppet.finish()
    return puppet.judge(stage.gained())


# --- keys --------------------------------------------------------------------------------------


def _keys_elsewhere(n: int, dim: int, seed: int) -> str:
    """Show the victim keys of the server's own in the name of all its neighbours."""
    stage = _target(n, dim, seed)
    victim = stage.names[0]
    private = {name: os.urandom(32) for name in stage.names if name != victim}
    own = {name: agreement.public_key(agreement.private_key(k)) for name, k in private.items()}
    shown = {name: PublicKeys(key, key) for name, key in own.items()}
    node = stage.nodes[victim]
    boxes = node.share(shown, stage.points, stage.threshold)
    stage._shown[victim] = shown
    opened: dict[int, bytes] = {}
    incoming: dict[NodeId, bytes] = {}
    for name, box in boxes.items():  # sealed to the server, in truth
        shared = agreement.agree(
            agreement.private_key(private[name]), victim, stage.keys[victim].share_key
        )
        key = seal_key(shared, name)
        opened[stage.points[name]] = aead.unseal(key, box, b"", sender=victim)[:33]
        incoming[name] = aead.seal(seal_key(shared, victim), bytes(66), b"")
    vector = ring.unpack(node.upload(incoming), dim, stage.bits)
    if vector is not None:
        on_it = {pair_id(victim, victim): False} | {
            pair_id(victim, name): name < victim for name in shown
        }
        stage.loot.uploads[victim] = Upload(vector, on_it)
    seed_of_self = shamir.combine(dict(sorted(opened.items())[: stage.threshold]))
    stage.loot.seeds[pair_id(victim, victim)] = seed_of_self or bytes(32)
    for name, key in private.items():
        stage.loot.seeds[pair_id(victim, name)] = pair_seed(key, stage.keys[victim].mask_key)
    return stage.gained()


def _swap_keys(change: Callable[[KeyAdvert], KeyAdvert]) -> Callable[[int, int, int], Played]:
    def play(n: int, dim: int, seed: int) -> Played:
        puppet = _puppet(n, dim, seed)
        puppet.adverts()

        def show(node: NodeId, message: PeerKeys) -> PeerKeys:
            if node != puppet.victim:
                return message
            swapped = tuple(change(advert) for advert in message.adverts)
            digests = dict(message.digests) | {a.node_id: advert_digest(a) for a in swapped}
            listed = tuple(sorted(digests.items()))
            return PeerKeys(message.round_id, listed, message.coins, swapped)

        puppet.keys(show)
        puppet.agreement()
        puppet.sharing()
        puppet.finish()
        return puppet.judge(_keys_elsewhere(n, dim, seed))

    return play


def _own_x25519(advert: KeyAdvert) -> KeyAdvert:
    own = agreement.public_key(agreement.private_key(os.urandom(32)))
    return _changed(advert, agreement_key=own)


def _own_kem(advert: KeyAdvert) -> KeyAdvert:
    return _changed(advert, kem_key=kem.public_key(kem.private_key(os.urandom(64))))


def _changed(advert: KeyAdvert, **changes: object) -> KeyAdvert:
    fields = {name: getattr(advert, name) for name in advert.__struct_fields__}
    return KeyAdvert(**{**fields, **changes})


def _own_capsules(n: int, dim: int, seed: int) -> Played:
    """Put capsules of the coordinator's own in place of those for the victim."""
    puppet = _puppet(n, dim, seed)
    puppet.adverts()
    puppet.keys()
    mallory = pairs.NodeKeys("mallory", os.urandom(32))

    def swap(capsule: PairCapsule) -> PairCapsule:
        binding = (*puppet.setup.context, puppet.graph_seed)
        secret, forged = mallory.initiate(puppet.tape.adverts[puppet.victim], binding)
        return capsule[0], forged, pairs.confirmation(secret.mask_seed)

    def show(node: NodeId, message: PeerEncapsulations) -> PeerEncapsulations:
        if node != puppet.victim:
            return message
        capsules = tuple(swap(capsule) for capsule in message.capsules)
        return PeerEncapsulations(message.round_id, message.agreed, capsules)

    puppet.agreement(show)
    puppet.sharing()
    puppet.finish()
    return puppet.judge(_keys_elsewhere(n, dim, seed))


# --- replay and models -------------------------------------------------------------------------


def _replayed_keys(n: int, dim: int, seed: int) -> Played:
    """Show keys of an earlier round, whose private halves were revealed in it."""
    earlier_target = _target(n, dim, seed + 1)
    earlier_target.run()
    others = earlier_target.names[1:]
    earlier_target.ask(earlier_target.names, active=[], dead=others)
    known = earlier_target.private_keys()
    stage = _target(n, dim, seed)
    victim = stage.names[0]
    shown = {name: earlier_target.keys[name] for name in others}
    node = stage.nodes[victim]
    node.share(shown, stage.points, stage.threshold)
    stage.run()  # for the shares that the others hold of the victim
    for name, private in known.items():
        stage.loot.seeds[pair_id(victim, name)] = pair_seed(private, stage.keys[victim].mask_key)
    _remask(stage, victim, shown)
    stage.ask(stage.names, active=[victim], dead=[])
    earlier = _puppet(n, dim, seed + 1)
    _until_upload(earlier)
    earlier.finish()
    puppet = _puppet(n, dim, seed, identities=earlier.identities, changes={"round_id": 2})
    puppet.adverts()

    def show(node: NodeId, message: PeerKeys) -> PeerKeys:
        if node != puppet.victim:
            return message
        old = tuple(_changed(earlier.tape.adverts[a.node_id], round_id=2) for a in message.adverts)
        digests = dict(message.digests) | {a.node_id: advert_digest(a) for a in old}
        return PeerKeys(2, tuple(sorted(digests.items())), message.coins, old)

    puppet.keys(show)
    puppet.agreement()
    puppet.sharing()
    puppet.finish()
    return puppet.judge(stage.gained(least=n))


def _remask(stage: TargetStage, victim: NodeId, shown: dict[NodeId, PublicKeys]) -> None:
    """Replace the victim's upload by the one it makes with the keys it was shown."""
    held = vars(stage.nodes[victim])
    vector = held["_vector"].copy()
    expand(vector, held["_self_seed"], negative=False)
    for peer, public in shown.items():
        expand(vector, pair_seed(held["_mask_private"], public.mask_key), negative=peer < victim)
    on_it = {pair_id(victim, victim): False} | {pair_id(victim, p): p < victim for p in shown}
    stage.loot.uploads[victim] = Upload(ring.reduce(vector, stage.bits), on_it)


def _replayed_signatures(n: int, dim: int, seed: int) -> Played:
    """Unmask with the co-signatures of an earlier round over the same survivors."""
    stage = _target(n, dim, seed)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[stage.names[0]])
    earlier = _puppet(n, dim, seed + 1)
    _until_upload(earlier)
    earlier.finish()
    puppet = _puppet(n, dim, seed, identities=earlier.identities, changes={"round_id": 2})
    _until_upload(puppet)
    puppet.survivors(dict.fromkeys(puppet.nodes, puppet.nodes))
    puppet.tape.cosigned = earlier.tape.cosigned
    puppet.unmask(dict.fromkeys(puppet.nodes, puppet.nodes))
    return puppet.judge(stage.gained())


def _inconsistent_models(n: int, dim: int, seed: int) -> Played:
    """Give all but the victim a model without gradients (Pasquini et al. 2022)."""
    stage = _target(n, dim, seed)
    victim = stage.names[0]
    silent = stage.zeros([victim])
    for name, zero in silent.items():
        vars(stage.nodes[name])["_vector"][:] = 0
        stage.inputs[name] = zero
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[])
    others = dict.fromkeys([f"node-{i:02d}" for i in range(1, n)], b"\1" * 32)
    puppet = _puppet(n, dim, seed, offers=others)
    known = {name: np.zeros(dim, dtype=np.uint32) for name in others}
    puppet.inputs |= known
    for name in others:
        vars(puppet.clients[name])["_vector"][:] = 0
    _until_upload(puppet)
    puppet.finish()
    return puppet.judge(stage.gained(known=silent), known=known)


def _stale_model(n: int, dim: int, seed: int) -> Played:
    """Give half of the nodes an older model: their updates of it would enter the same sum."""
    stage = _target(n, dim, seed)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[])
    behind, _ = _halves(stage.names)
    puppet = _puppet(n, dim, seed, offers=dict.fromkeys(behind, b"\2" * 32))
    _until_upload(puppet)
    puppet.finish()
    mixed = stage.loot.released(stage.inputs, least=2) if stage.gained() else 0
    elsewhere = f"a sum over {mixed} nodes, {len(behind)} of them on another model, unnoticed"
    return puppet.judge(elsewhere)


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
        "coordinator",
        "open two sums that differ by one node",
        ("M-11",),
        _split_views,
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
        "split-sharers",
        "coordinator and nodes",
        "tell the victim that few nodes shared their secrets",
        ("M-09", "M-24"),
        _split_sharers,
    ),
    Attack(
        "split-agreed",
        "coordinator and nodes",
        "tell the victim that few nodes agreed on keys",
        ("M-26", "M-24"),
        _split_agreed,
    ),
    Attack(
        "key-substitution",
        "coordinator",
        "put X25519 keys of its own in the place of others'",
        ("M-04",),
        _swap_keys(_own_x25519),
    ),
    Attack(
        "kem-key-substitution",
        "coordinator",
        "put ML-KEM keys of its own in the place of others'",
        ("M-04",),
        _swap_keys(_own_kem),
    ),
    Attack(
        "capsule-substitution",
        "coordinator",
        "put capsules of its own in the place of others'",
        ("M-26",),
        _own_capsules,
    ),
    Attack(
        "replayed-keys",
        "coordinator",
        "show keys of an earlier round that it has seen revealed",
        ("M-04", "M-05"),
        _replayed_keys,
    ),
    Attack(
        "replayed-signatures",
        "coordinator",
        "unmask with co-signatures of an earlier round",
        ("M-11",),
        _replayed_signatures,
    ),
    Attack(
        "inconsistent-models",
        "coordinator",
        "give all but the victim a model that yields no gradients",
        ("M-04", "M-07"),
        _inconsistent_models,
    ),
    Attack(
        "stale-model",
        "coordinator",
        "give half of the nodes an older model",
        ("M-04", "M-07"),
        _stale_model,
    ),
    Attack(
        "cut-arc",
        "coordinator",
        "name the nodes on either side of an arc of a sparse graph as dropped",
        ("M-25",),
        cut_arc,
    ),
)
