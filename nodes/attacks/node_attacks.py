"""What an evil node can do to a round with shares, backups, keys and coins.

Each attack is one change to what an honest client would send. The rest of the round is real: the
state machines, the codec, the signed envelopes. The evil node reads its own client's secrets, as it
may. Beside it runs the analogous move against the semi-honest target. What it can do from its
upload on is in `nodes.attacks.upload_attacks`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Final

import msgspec

from nodes.attacks.node_moves import AMONG, instead, node_attack
from nodes.attacks.node_stage import Federation, Move, make_setup
from nodes.attacks.report import Attack, Played
from nodes.attacks.semi_honest import BothShares, PublicKeys
from nodes.attacks.target_stage import TargetMove, TargetRound
from secagg.masking import pairs
from secagg.primitives import aead, shamir
from secagg.types import NodeId
from secagg.wire.messages import (
    AdvertList,
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    PeerKeys,
    SealedShares,
    UnmaskAnswer,
)

__all__ = ["NODE_ATTACKS"]

_SPARSE: Final = (16, 8, 5)
"""Fewest nodes, degree and threshold of a sparse graph, to have coins tossed; no safe setting."""


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


# --- shares and backups ------------------------------------------------------------------------


def _wrong_shares(_: Federation, answer: UnmaskAnswer) -> list[Message]:
    shares = tuple((owner, _flipped(share)) for owner, share in answer.self_shares)
    return [UnmaskAnswer(answer.round_id, shares, answer.key_shares)]


def _wrong_answer(_: TargetRound) -> TargetMove:
    def answer(right: BothShares) -> BothShares:
        flipped = {owner: _flipped(share) for owner, share in right.self_shares.items()}
        return BothShares(flipped, right.key_shares)

    return TargetMove(answer=answer)


def _wrong_backup() -> Move:
    """Seal other seeds than those that its neighbours mask with, and drop out."""

    def move(stage: Federation, _: Message | None, due: list[Message]) -> list[Message]:
        sent: list[Message] = []
        for message in due:
            if isinstance(message, SealedShares):
                own, context = stage.own, stage.setup.context
                seeds = [secrets.token_bytes(32) for _ in own._pairs]
                backup = pairs.seal_backup(own._round_secret, context, own._me, seeds)
                sent.append(SealedShares(message.round_id, message.boxes, backup))
            elif not isinstance(message, MaskedChunk):
                sent.append(message)
        return sent

    return move


def _dealt(target: TargetRound, *, self_seed: bytes = b"", mask_key: bytes = b"") -> TargetMove:
    """Return the move that deals shares of another self-mask seed, or of another mask key."""
    setup, own = target.setup, target.nodes[target.attacked]

    def boxes(right: dict[NodeId, bytes]) -> dict[NodeId, bytes]:
        points = {node: index for index, node in enumerate(setup.cohort, start=1)}
        holders, t, rng = list(points.values()), setup.threshold, secrets.token_bytes
        seeds = shamir.split(self_seed or own._self_seed, holders, t, rng)
        keys = shamir.split(mask_key or own._mask_private, holders, t, rng)
        return {
            node: aead.seal(
                own._seal_key(node, node), seeds[points[node]] + keys[points[node]], b""
            )
            for node in right
        }

    return TargetMove(boxes=boxes, silent=bool(mask_key))


def _dealer_lies(stage: Federation, due: SealedShares) -> list[Message]:
    own, setup = stage.own, stage.setup
    circle = {node: point for point, node in enumerate(sorted(own._graph.circle), start=1)}
    points = [circle[node] for node in (*own._pairs, own._me)]
    wrong = shamir.split(secrets.token_bytes(32), points, setup.threshold, secrets.token_bytes)
    boxes = []
    for node, secret in own._pairs.items():
        key = secret.seal_key(sender=own._me, receiver=node)
        boxes.append((node, aead.seal(key, 2 * wrong[circle[node]], b"")))
    return [SealedShares(due.round_id, tuple(boxes), due.backup)]


def _shut_box(_: Federation, due: SealedShares) -> list[Message]:
    node, box = due.boxes[0]
    boxes = ((node, secrets.token_bytes(len(box))), *due.boxes[1:])
    return [SealedShares(due.round_id, boxes, due.backup)]


def _shut_target_box(target: TargetRound) -> TargetMove:
    first = next(node for node in target.setup.cohort if node != target.attacked)

    def boxes(right: dict[NodeId, bytes]) -> dict[NodeId, bytes]:
        return right | {first: secrets.token_bytes(len(right[first]))}

    return TargetMove(boxes=boxes)


def _unasked_shares() -> Move:
    """Reveal both shares of everybody's."""
    held: dict[NodeId, tuple[bytes, bytes]] = {}

    def move(stage: Federation, _: Message | None, due: list[Message]) -> list[Message]:
        held.update(stage.own._held)  # before the client forgets them
        sent: list[Message] = []
        for message in due:
            if isinstance(message, UnmaskAnswer):
                key_shares = tuple((owner, held[owner][0]) for owner in sorted(held))
                self_shares = tuple((owner, held[owner][1]) for owner in sorted(held))
                message = UnmaskAnswer(message.round_id, self_shares, key_shares)
            sent.append(message)
        return sent

    return move


def _took_unasked(stage: Federation, nodes: Collection[NodeId]) -> str:
    """Count the shares that the coordinator took of secrets that are to stay hidden."""
    answers = [each for _, each in stage.taken if isinstance(each, UnmaskAnswer)]
    unasked = sum(owner in nodes for each in answers for owner, _ in each.key_shares)
    unasked += sum(owner not in nodes for each in answers for owner, _ in each.self_shares)
    return (
        f"the coordinator took {unasked} shares that nobody asked for" if nodes and unasked else ""
    )


def _unasked_of_target(target: TargetRound) -> TargetMove:
    own, cohort = target.nodes[target.attacked], target.setup.cohort
    return TargetMove(answer=lambda _: own.reveal(cohort, cohort))


# --- keys and coins ----------------------------------------------------------------------------


def _wrong_capsule(_: Federation, due: Encapsulations) -> list[Message]:
    node, capsule, confirmation = due.capsules[0]
    wrong = (node, secrets.token_bytes(len(capsule)), confirmation)
    return [Encapsulations(due.round_id, (wrong, *due.capsules[1:]))]


def _swapped_key(_: Federation, advert: KeyAdvert) -> list[Message]:
    return [msgspec.structs.replace(advert, agreement_key=secrets.token_bytes(32))]


def _other_key(_: TargetRound) -> TargetMove:
    def keys(right: PublicKeys) -> PublicKeys:
        return PublicKeys(secrets.token_bytes(32), right.share_key)

    return TargetMove(keys=keys)


def _withheld_coin(n: int, dim: int, seed: int) -> Played:
    least, neighbours, threshold = _SPARSE
    setup, parties = make_setup(max(n, least), dim, neighbours=neighbours, threshold=threshold)
    evil = setup.cohort[AMONG]
    target = TargetRound(setup, seed=seed, attacked=evil)
    elsewhere = target.play(TargetMove(silent=True))

    def nothing(_: Federation, __: Coin) -> list[Message]:
        return []

    stage = Federation(setup, parties, seed=seed, evil=evil, move=instead(Coin, nothing))
    return stage.play(elsewhere, _chose_graph)


def _chose_graph(stage: Federation, nodes: Collection[NodeId]) -> str:
    """Tell whether the graph follows from coins that were known when one was withheld."""
    used = {coin for _, each in stage.log if isinstance(each, PeerKeys) for coin in each.coins}
    tossed = [(node, each) for node, each in stage.log if isinstance(each, Coin)]
    for attempt in {each.attempt for _, each in tossed}:
        coins = {node: each.coin for node, each in tossed if each.attempt == attempt}
        asked = {
            entry[0]
            for _, each in stage.log
            if isinstance(each, AdvertList) and each.attempt == attempt
            for entry in each.entries
        }
        if nodes and stage.evil in asked - set(coins) and used <= set(coins.values()):
            return "it chose between two graphs"
    return ""


NODE_ATTACKS: Final[tuple[Attack, ...]] = (
    node_attack(
        "wrong-shares",
        "A node reveals wrong shares of every self-mask seed.",
        ("M-18", "M-19"),
        lambda: instead(UnmaskAnswer, _wrong_shares),
        _wrong_answer,
    ),
    node_attack(
        "wrong-backup",
        "A node backs up other pair seeds than it masks with, and drops out.",
        ("M-27",),
        _wrong_backup,
        lambda target: _dealt(target, mask_key=secrets.token_bytes(32)),
        costs=None,
    ),
    node_attack(
        "dealer-lies",
        "A node deals shares of other secrets than it committed to.",
        ("M-04", "M-19"),
        lambda: instead(SealedShares, _dealer_lies),
        lambda target: _dealt(target, self_seed=secrets.token_bytes(32)),
        costs=None,
    ),
    node_attack(
        "box-that-does-not-open",
        "A node sends a neighbour noise for its sealed shares.",
        ("M-10",),
        lambda: instead(SealedShares, _shut_box),
        _shut_target_box,
    ),
    node_attack(
        "unasked-shares",
        "A node reveals both shares of everybody's, so that few more are needed.",
        ("M-12",),
        _unasked_shares,
        _unasked_of_target,
        judge=_took_unasked,
    ),
    node_attack(
        "wrong-capsule",
        "A node sends a neighbour a capsule that gives it another pair secret.",
        ("M-26",),
        lambda: instead(Encapsulations, _wrong_capsule),
        _other_key,
        costs=None,
    ),
    node_attack(
        "unsigned-advert",
        "A node's key is swapped after its advert was signed.",
        ("M-04",),
        lambda: instead(KeyAdvert, _swapped_key),
        _other_key,
    ),
    Attack(
        "withheld-coin",
        "node",
        "A node sees who is in the graph's lottery and withholds its coin.",
        ("M-06",),
        _withheld_coin,
    ),
)
