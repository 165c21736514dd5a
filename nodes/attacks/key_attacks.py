"""Attacks of a malicious coordinator by keys, capsules, old messages and models.

Each is played twice: before the real nodes, and against the semi-honest target.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Final

import numpy as np

from nodes.attacks.coordinator_attacks import (
    halves,
    new_puppet,
    new_target,
    two_views,
)
from nodes.attacks.impostor import Impostor, changed
from nodes.attacks.knowledge import Upload, pair_id
from nodes.attacks.report import NOTHING, Attack, Played
from nodes.attacks.semi_honest import PublicKeys, expand, pair_seed, seal_key
from nodes.attacks.target_puppet import TargetPuppet
from secagg import ring
from secagg.errors import AuthenticationError
from secagg.masking import pairs
from secagg.masking.parameters import choose
from secagg.primitives import aead, agreement, shamir
from secagg.types import NodeId
from secagg.wire.messages import PairCapsule, PeerEncapsulations, PeerShares

__all__ = ["KEY_ATTACKS"]


# --- keys --------------------------------------------------------------------------------------


def _keys_elsewhere(n: int, dim: int, seed: int) -> str:
    """Show the victim keys of the server's own in the name of all its neighbours."""
    stage = new_target(n, dim, seed)
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


def _swap(*names: str) -> Callable[[int, int, int], Played]:
    """Pose to the victim as all others, with these keys of their adverts replaced."""

    def play(n: int, dim: int, seed: int) -> Played:
        puppet = new_puppet(n, dim, seed)
        puppet.adverts()
        Impostor(puppet, swapped=names).play()
        return puppet.judge(_keys_elsewhere(n, dim, seed))

    return play


def _own_capsules(n: int, dim: int, seed: int) -> Played:
    """Put capsules of the coordinator's own in place of those for the victim."""
    puppet = new_puppet(n, dim, seed)
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
    earlier_target = new_target(n, dim, seed + 1)
    earlier_target.run()
    others = earlier_target.names[1:]
    earlier_target.ask(earlier_target.names, active=[], dead=others)
    known = earlier_target.private_keys()
    stage = new_target(n, dim, seed)
    victim = stage.names[0]
    shown = {name: earlier_target.keys[name] for name in others}
    node = stage.nodes[victim]
    node.share(shown, stage.points, stage.threshold)
    stage.run()  # for the shares that the others hold of the victim
    for name, private in known.items():
        stage.loot.seeds[pair_id(victim, name)] = pair_seed(private, stage.keys[victim].mask_key)
    _remask(stage, victim, shown)
    stage.ask(stage.names, active=[victim], dead=[])
    earlier = new_puppet(n, dim, seed + 1)
    earlier.until_upload()
    earlier.finish()
    puppet = new_puppet(n, dim, seed, identities=earlier.identities, changes={"round_id": 2})
    puppet.adverts()

    past = {node: changed(earlier.tape.adverts[node], round_id=2) for node in puppet.nodes[1:]}
    Impostor(puppet, past=past).play()
    return puppet.judge(stage.gained(least=n))


def _remask(stage: TargetPuppet, victim: NodeId, shown: dict[NodeId, PublicKeys]) -> None:
    """Replace the victim's upload by the one it makes with the keys it was shown."""
    held = vars(stage.nodes[victim])
    vector = held["_vector"].copy()
    expand(vector, held["_self_seed"], negative=False)
    for peer, public in shown.items():
        expand(vector, pair_seed(held["_mask_private"], public.mask_key), negative=peer < victim)
    on_it = {pair_id(victim, victim): False} | {pair_id(victim, p): p < victim for p in shown}
    stage.loot.uploads[victim] = Upload(ring.reduce(vector, stage.bits), on_it)


def _replayed_capsules(n: int, dim: int, seed: int) -> Played:
    """Give the victim the capsules of an earlier round, whose pair seeds were revealed."""
    earlier = new_puppet(n, dim, seed + 1)
    earlier.until_upload()
    puppet = new_puppet(n, dim, seed, identities=earlier.identities, changes={"round_id": 2})
    puppet.adverts()
    puppet.keys()
    past = {
        sender: (sender, capsule, confirmation)
        for sender, message in earlier.tape.capsules.items()
        for receiver, capsule, confirmation in message.capsules
        if receiver == puppet.victim
    }

    def show(node: NodeId, message: PeerEncapsulations) -> PeerEncapsulations:
        if node != puppet.victim:
            return message
        capsules = tuple(past.get(each[0], each) for each in message.capsules)
        return PeerEncapsulations(message.round_id, message.agreed, capsules)

    puppet.agreement(show)
    puppet.sharing()
    puppet.finish()
    return puppet.judge(_old_boxes_elsewhere(n, dim, seed))


def _old_boxes_elsewhere(n: int, dim: int, seed: int) -> str:
    """Relay the sealed shares of an earlier round, as no key is sent along with a target's mask."""
    earlier, stage = new_target(n, dim, seed + 1), new_target(n, dim, seed)
    victim, others = stage.names[0], stage.names[1:]
    boxes = {
        name: earlier.nodes[name].share(
            {peer: earlier.keys[peer] for peer in earlier.names if peer != name},
            earlier.points,
            earlier.threshold,
        )
        for name in others
    }
    peers = {peer: stage.keys[peer] for peer in others}
    stage.nodes[victim].share(peers, stage.points, stage.threshold)
    try:
        stage.nodes[victim].upload({name: boxes[name][victim] for name in others})
    except AuthenticationError as error:
        return f"{victim} crashes: {type(error).__name__}: {error.fault}"
    return NOTHING


def _replayed_shares(n: int, dim: int, seed: int) -> Played:
    """Give everybody the sealed shares of an earlier round."""
    earlier = new_puppet(n, dim, seed + 1)
    earlier.until_upload()
    puppet = new_puppet(n, dim, seed, identities=earlier.identities, changes={"round_id": 2})
    puppet.adverts()
    puppet.keys()
    puppet.agreement()

    def show(node: NodeId, message: PeerShares) -> PeerShares:
        past = {
            sender: dict(earlier.tape.shares[sender].boxes)[node] for sender, _ in message.boxes
        }
        return PeerShares(message.round_id, message.sharers, tuple(past.items()))

    puppet.sharing(show)
    puppet.finish()
    return puppet.judge(_old_boxes_elsewhere(n, dim, seed))


def _replayed_signatures(n: int, dim: int, seed: int) -> Played:
    """Open two views, each with co-signatures of an earlier round for those who did not sign it."""
    stage = new_target(n, dim, seed)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[stage.names[0]])
    earlier = new_puppet(n, dim, seed + 1)
    earlier.until_upload()
    earlier.finish()
    puppet = new_puppet(
        n,
        dim,
        seed,
        identities=earlier.identities,
        changes={"round_id": 2, "threshold": n // 2 + 1},
        accomplices=choose(n).colluders,
    )
    puppet.until_upload()
    two_views(puppet, [puppet.victim], padding=earlier.tape.cosigned)
    return puppet.judge(stage.gained())


def _inconsistent_models(n: int, dim: int, seed: int) -> Played:
    """Give all but the victim a model without gradients (Pasquini et al. 2022)."""
    stage = new_target(n, dim, seed)
    victim = stage.names[0]
    silent = stage.zeros([victim])
    for name, zero in silent.items():
        vars(stage.nodes[name])["_vector"][:] = 0
        stage.inputs[name] = zero
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[])
    others = dict.fromkeys([f"node-{i:02d}" for i in range(1, n)], b"\1" * 32)
    puppet = new_puppet(n, dim, seed, offers=others)
    known = {name: np.zeros(dim, dtype=np.uint32) for name in others}
    puppet.inputs |= known
    for name in others:
        vars(puppet.clients[name])["_vector"][:] = 0
    puppet.until_upload()
    puppet.finish()
    return puppet.judge(stage.gained(known=silent), known=known)


def _stale_model(n: int, dim: int, seed: int) -> Played:
    """Give half of the nodes an older model: their updates of it would enter the same sum."""
    stage = new_target(n, dim, seed)
    stage.run()
    stage.ask(stage.names, active=stage.names, dead=[])
    behind, _ = halves(stage.names)
    puppet = new_puppet(n, dim, seed, offers=dict.fromkeys(behind, b"\2" * 32))
    puppet.until_upload()
    puppet.finish()
    mixed = stage.loot.released(stage.inputs, least=2) if stage.gained() else 0
    played = puppet.judge(_mixture(mixed, len(behind)))
    if played.revealed:
        return played
    here = _mixture(puppet.loot().released(puppet.inputs, least=n), len(behind))
    return dataclasses.replace(played, here=here)


def _mixture(nodes: int, behind: int) -> str:
    if not nodes:
        return NOTHING
    return f"a sum over {nodes} nodes, {behind} of them on another model, unnoticed"


KEY_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "key-substitution",
        "coordinator",
        "pose to the victim as all others, with keys of its own in their adverts",
        ("M-04",),
        _swap("agreement_key", "kem_key"),
    ),
    Attack(
        "x25519-substitution",
        "coordinator",
        "put X25519 keys of its own in the place of others'",
        ("M-04", "M-07"),
        _swap("agreement_key"),
    ),
    Attack(
        "kem-key-substitution",
        "coordinator",
        "put ML-KEM keys of its own in the place of others'",
        ("M-04", "M-07", "M-26"),
        _swap("kem_key"),
    ),
    Attack(
        "capsule-substitution",
        "coordinator",
        "put capsules of its own in the place of others'",
        ("M-26", "M-07"),
        _own_capsules,
    ),
    Attack(
        "replayed-keys",
        "coordinator",
        "show keys of an earlier round after all that was revealed in it",
        ("M-04", "M-05"),
        _replayed_keys,
    ),
    Attack(
        "replayed-capsules",
        "coordinator",
        "give the victim the capsules of an earlier round",
        ("M-26", "M-07"),
        _replayed_capsules,
    ),
    Attack(
        "replayed-shares",
        "coordinator",
        "give everybody the sealed shares of an earlier round",
        ("M-08", "M-10"),
        _replayed_shares,
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
)
