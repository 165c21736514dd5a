"""What the failures are made with: changed fields, and messages signed or sealed anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from secagg.masking import adverts, pairs
from secagg.masking.graph import build_graph
from secagg.primitives.signing import sign
from secagg.tags import KEY_ADVERT
from secagg.wire.messages import KeyAdvert, Message, PeerKeys
from tests.vectors.slow import COORDINATOR
from tests.vectors.stage import Cast, Change, Rewrite

FOUR, EIGHT, TWELVE = "complete-4", "sparse-8", "sparse-12"
A, B, C, D = "node-a", "node-b", "node-c", "node-d"
BLAMES_B = {"blamed": [B]}


def flipped(data: bytes, index: int = -1) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[index] ^= 1
    return bytes(changed)


def refused(party: str, layer: str, blames: str) -> dict[str, list[str]]:
    return {"refused": [party, layer, blames]}


def leaves(node: str) -> dict[str, list[str]]:
    """Return what is expected where a node blames the coordinator and leaves the round."""
    return refused(node, "protocol", COORDINATOR)


def up(kind: type[Message], rewrite: Rewrite, *, node: str = B, nth: int = 1) -> tuple[Change, ...]:
    return (Change(node, COORDINATOR, kind, rewrite, nth),)


def down(
    kind: type[Message], rewrite: Rewrite, *, node: str = A, nth: int = 1
) -> tuple[Change, ...]:
    return (Change(COORDINATOR, node, kind, rewrite, nth),)


def fields(**changed: Callable[[Any], object]) -> Rewrite:
    """Return a rewrite that passes fields of the message through functions."""

    def rewrite(cast: Cast, message: Any) -> Message:
        values = {name: change(getattr(message, name)) for name, change in changed.items()}
        new: Message = replace(message, **values)
        return new

    return rewrite


def without(key: object) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a function that leaves out an id, or the entry of an id."""

    def change(items: Sequence[Any]) -> tuple[Any, ...]:
        kept = [item for item in items if key not in (item, item[0])]
        assert len(kept) == len(items) - 1
        return tuple(kept)

    return change


def altered(index: int, place: int) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a function that flips a bit in field `place` of entry `index`."""

    def change(items: Sequence[Any]) -> tuple[Any, ...]:
        entry = list(items[index])
        entry[place] = flipped(entry[place])
        out = list(items)
        out[index] = tuple(entry)
        return tuple(out)

    return change


def twice(sender: str) -> Rewrite:
    """Return a rewrite that delivers the message a second time."""
    return lambda cast, message: [(sender, message), (sender, message)]


def resigned(cast: Cast, advert: KeyAdvert, **changes: Any) -> KeyAdvert:
    """Return an advert with other fields under a good signature."""
    new = replace(advert, **changes)
    parts = (new.agreement_key, new.kem_key)
    commitments = (new.round_commitment, new.self_commitment, new.coin_commitment)
    names = new.node_id.encode(), bytes([new.suite])
    signed = (*cast.checked.context, *names, *parts, *commitments)
    signature = sign(cast.identities[new.node_id], KEY_ADVERT, *signed)
    return replace(new, signature=signature)


def graph_seed_of(cast: Cast) -> bytes:
    """Return the graph seed of a complete graph over all of a cast."""
    return adverts.graph_seed(cast.checked.offer_hash, listed(cast), ())


def keys_of(cast: Cast, node: str) -> pairs.NodeKeys:
    return pairs.NodeKeys(node, cast.secret(node, "agreement"))


def advert_of(cast: Cast, node: str) -> KeyAdvert:
    agreement_key, kem_key = keys_of(cast, node).public
    commitments = (
        adverts.round_commitment(cast.secret(node, "round_secret")),
        adverts.self_commitment(cast.secret(node, "self_seed")),
        adverts.coin_at(cast.secret(node, "coin_seed"), 0),
    )
    return adverts.make_advert(
        cast.checked,
        cast.identities[node],
        agreement_key=agreement_key,
        kem_key=kem_key,
        commitments=commitments,
    )


def pair_secret_of(cast: Cast, pair: tuple[str, str], seed: bytes) -> pairs.PairSecret:
    """Return the secret of (initiator, responder) from the responder's side."""
    initiator, responder = pair
    _, capsule = cast.encapsulate(*pair, keys_of(cast, responder).public[1])
    binding = (*cast.checked.context, seed)
    return keys_of(cast, responder).respond(advert_of(cast, initiator), capsule, binding)


def listed(cast: Cast) -> tuple[tuple[str, bytes], ...]:
    """Return the list of all adverts of a cast."""
    return tuple((node, adverts.advert_digest(advert_of(cast, node))) for node in cast.cohort)


def coins_of(cast: Cast) -> tuple[bytes, ...]:
    """Return the coins of the first toss."""
    return tuple(adverts.coin_at(cast.secret(node, "coin_seed"), 1) for node in cast.cohort)


def keys_for(
    cast: Cast, me: str, digests: tuple[tuple[str, bytes], ...], coins: tuple[bytes, ...]
) -> PeerKeys | None:
    """Return keys that fit the graph of that list and those coins; None where none can."""
    seed = adverts.graph_seed(cast.checked.offer_hash, digests, coins)
    nodes = [node for node, _ in digests]
    graph = build_graph(nodes, degree=cast.checked.neighbours, seed=seed)
    near = [advert_of(cast, node) for node in sorted(graph.neighbours(me))]
    if any((advert.node_id, adverts.advert_digest(advert)) not in digests for advert in near):
        return None
    return PeerKeys(cast.checked.round_id, digests, coins, tuple(near))
