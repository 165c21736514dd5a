"""One failure each, up to the keys of pairs: adverts, coins, capsules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from secagg.masking import adverts
from secagg.wire.codec import encode
from secagg.wire.messages import (
    AdvertList,
    Coin,
    Encapsulations,
    KeyAdvert,
    Message,
    PeerEncapsulations,
    PeerKeys,
    Survivors,
    SurvivorSignature,
)
from tests.vectors.rounds import Case, graph_of
from tests.vectors.slow import COORDINATOR
from tests.vectors.stage import Cast, Change, Rewrite
from tests.vectors.tools import (
    BLAMES_B,
    EIGHT,
    FOUR,
    TWELVE,
    A,
    B,
    C,
    D,
    advert_of,
    altered,
    down,
    fields,
    flipped,
    keys_for,
    leaves,
    listed,
    refused,
    resigned,
    twice,
    up,
    without,
)

__all__ = ["early_failures"]


Z = "node-z"


def early_failures() -> list[Case]:
    """Return every case."""
    return [
        *_bytes(),
        *_adverts(),
        *_peer_keys(),
        *_coins(),
        *_agreement(),
    ]


BAD_KEYS: Mapping[str, tuple[str, dict[str, object]]] = {
    "suite": ("is of suite 2", {"suite": 2}),
    "small-order": ("has an X25519 key of small order", {"agreement_key": bytes(32)}),
    "kem-key": ("has an ML-KEM key with a coefficient of 4095", {"kem_key": b"\xff" * 1184}),
}


def _bytes() -> list[Case]:
    shapes: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
        "truncated": ("an advert without its last byte", lambda data: data[:-1]),
        "trailing": ("an advert with a byte more", lambda data: data + b"\0"),
        "long-integer": (
            "an advert with its round id in two bytes where one is enough",
            lambda data: data[:2] + b"\xcc" + data[2:],
        ),
        "short-key": (
            "an advert whose X25519 key has 31 bytes",
            lambda data: data.replace(b"\xc4\x20", b"\xc4\x1f", 1)[:-1],
        ),
        "unknown-type": ("a message of type 0x1f", lambda data: data[:1] + b"\x1f" + data[2:]),
    }
    return [
        Case(
            f"bytes-{name}", FOUR, about, ("M-21",), refused(COORDINATOR, "decode", B),
            up(KeyAdvert, lambda cast, message, shape=shape: shape(encode(message))),
        )
        for name, (about, shape) in shapes.items()
    ]  # fmt: skip


def _adverts() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, expect: Mapping[str, Any]) -> Case:
        rules = ("M-04",) if "blamed" in expect else ("M-21",)
        return Case(f"advert-{name}", FOUR, about, rules, expect, up(KeyAdvert, rewrite))

    bad = [
        case(
            name, f"an advert {what}, well signed",
            lambda cast, message, change=change: resigned(cast, message, **change), BLAMES_B,
        )
        for name, (what, change) in BAD_KEYS.items()
    ]  # fmt: skip
    return [
        *bad,
        case("signature", "a bit of the signature is changed", fields(signature=flipped), BLAMES_B),
        case("other-name", "a good advert of another node than its sender",
             lambda cast, message: advert_of(cast, C), BLAMES_B),
        case(
            "other-round", "an advert of round 8", fields(round_id=lambda number: number + 1),
            refused(COORDINATOR, "replay", B),
        ),
        case("twice", "an advert a second time", twice(B), refused(COORDINATOR, "replay", B)),
        case(
            "stranger", "an advert from a node outside the cohort",
            lambda cast, message: [("node-z", message)],
            refused(COORDINATOR, "protocol", "node-z"),
        ),
        case(
            "out-of-phase", "a co-signature while adverts are due",
            lambda cast, message: SurvivorSignature(7, bytes(64)),
            refused(COORDINATOR, "protocol", B),
        ),
    ]  # fmt: skip


def _relayed(change: Callable[[Cast, KeyAdvert], KeyAdvert], base: str = FOUR) -> Rewrite:
    """Return a rewrite of `PeerKeys`: another advert of a successor of node-a, digests to match."""

    def rewrite(cast: Cast, message: PeerKeys) -> PeerKeys:
        victim = min(graph_of(base).successors(A))
        bad = {
            advert.node_id: change(cast, advert)
            for advert in message.adverts
            if advert.node_id == victim
        }
        digests = tuple(
            (node, adverts.advert_digest(bad[node]) if node in bad else digest)
            for node, digest in message.digests
        )
        relayed = tuple(bad.get(advert.node_id, advert) for advert in message.adverts)
        return replace(message, digests=digests, adverts=relayed)

    return rewrite


def _peer_keys() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        return Case(f"keys-{name}", FOUR, about, rules, leaves(A), down(PeerKeys, rewrite))

    def swapped(cast: Cast, message: PeerKeys) -> PeerKeys:
        first, second, *rest = message.digests
        return replace(message, digests=(second, first, *rest))

    bad = [
        case(
            name, f"a relayed advert {what}, well signed, and listed as it is",
            _relayed(lambda cast, advert, change=change: resigned(cast, advert, **change)), "M-04",
        )
        for name, (what, change) in BAD_KEYS.items()
    ]  # fmt: skip
    forged = _relayed(lambda cast, advert: replace(advert, agreement_key=bytes(range(32))))
    stranger = fields(digests=lambda listed: (*listed, ("node-z", bytes(32))))
    return [
        *bad,
        case("signature", "a relayed advert with another X25519 key and its old signature",
             forged, "M-04"),
        case("digest", "a relayed advert is not that of the list",
             fields(digests=altered(1, 1)), "M-06"),
        case("own-advert", "the list holds another digest of the receiver",
             fields(digests=altered(0, 1)), "M-06"),
        case("missing-advert", "the advert of a neighbour is missing",
             fields(adverts=lambda relayed: relayed[1:]), "M-06"),
        case("unsorted", "the list is not in order of id", swapped, "M-06"),
        case("coins", "coins that nobody tossed", fields(coins=lambda _: (bytes(32),) * 4), "M-06"),
        case("stranger", "the list names a node outside the cohort", stranger, "M-06"),
        case("too-few", "two nodes in the list, three are needed",
             fields(digests=lambda listed: listed[:2], adverts=lambda relayed: relayed[:1]),
             "M-03"),
        case("other-round", "keys of round 8", fields(round_id=lambda number: number + 1), "M-13"),
        case("out-of-phase", "a survivor set while keys are due",
             lambda cast, message: Survivors(7, cast.cohort, ()), "M-13"),
    ]  # fmt: skip


def _coins() -> list[Case]:
    def case(
        name: str, about: str, changes: Sequence[Change], expect: Mapping[str, Any] | None = None,
        *, base: str = EIGHT, silent: Mapping[str, tuple[type[Message], int]] | None = None,
    ) -> Case:  # fmt: skip
        return Case(
            f"coins-{name}", base, about, ("M-06",), expect or leaves(A), changes, silent or {}
        )

    held_back = {"node-k": (Coin, 0)}

    def second(name: str, about: str, rewrite: Rewrite) -> Case:
        changes = down(AdvertList, rewrite, nth=2)
        return case(name, about, changes, base=TWELVE, silent=held_back)

    # While the list of the first toss is awaited, a second toss would come too early.
    return [
        case("wrong", "a coin that does not hash to its commitment",
             up(Coin, fields(coin=flipped)), BLAMES_B),
        case("other-toss", "a coin of toss 2 in toss 1", up(Coin, fields(attempt=lambda _: 2)),
             refused(COORDINATOR, "replay", B)),
        case("list-without-me", "the list to toss for lacks the receiver",
             down(AdvertList, fields(entries=without(A)))),
        case("list-other-commitment", "the list holds another coin commitment of the receiver",
             down(AdvertList, fields(entries=altered(0, 2)))),
        case("list-too-few", "a list of four, five are needed",
             down(AdvertList, fields(entries=lambda entries: entries[:4]))),
        case("list-stranger", "the list names a node outside the cohort",
             down(AdvertList, fields(entries=lambda each: (*each, (Z, bytes(32), bytes(32)))))),
        case("second-toss-first", "toss 2 without a toss 1",
             down(AdvertList, fields(attempt=lambda _: 2))),
        case("same-toss-twice", "the same toss a second time",
             down(AdvertList, twice(COORDINATOR))),
        second("list-changed", "between two tosses an advert in the list has changed",
               fields(entries=altered(1, 1))),
        second("list-kept", "a second toss for the same list",
               lambda cast, message: _first_list(cast, message)),
        second("skipped", "toss 3 after toss 1", fields(attempt=lambda _: 3)),
        case("none", "a sparse graph without coins, right after the adverts",
             down(AdvertList, lambda cast, message: _keys_without_coins(cast, message))),
        case("left-out", "keys without the coins that were tossed",
             down(PeerKeys, fields(coins=lambda _: ()))),
        case("left-out-complete", "the same where after a second toss the graph is complete",
             down(PeerKeys, _complete_without_coins), silent={"node-h": (Coin, 0)}),
        case("one-missing", "keys with one coin too few",
             down(PeerKeys, fields(coins=lambda coins: coins[:-1]))),
        case("shown-wrong", "keys with a coin that does not hash to its commitment",
             down(PeerKeys, _keys_of_wrong_coin)),
        case("other-list", "keys for another list than the coins were tossed for",
             down(PeerKeys, _keys_of_other_list)),
        case("keys-of-fewer", "keys for a shorter list than the coins were tossed for",
             down(PeerKeys, fields(digests=without("node-h"), coins=lambda coins: coins[:-1]))),
    ]  # fmt: skip


def _first_list(cast: Cast, message: AdvertList) -> AdvertList:
    """Return the second toss's list with the node that withheld its coin put back."""
    missing = next(node for node in cast.cohort if node not in dict(_pairs(message.entries)))
    advert = advert_of(cast, missing)
    entry = (missing, adverts.advert_digest(advert), advert.coin_commitment)
    return replace(message, entries=tuple(sorted((*message.entries, entry))))


def _pairs(entries: Sequence[tuple[str, bytes, bytes]]) -> list[tuple[str, bytes]]:
    return [(node, digest) for node, digest, _ in entries]


def _keys_without_coins(cast: Cast, message: AdvertList) -> PeerKeys:
    keys = keys_for(cast, A, listed(cast), ())
    assert keys is not None
    return keys


def _complete_without_coins(cast: Cast, message: PeerKeys) -> PeerKeys:
    keys = keys_for(cast, A, message.digests, ())
    assert keys is not None
    return keys


def _keys_of_wrong_coin(cast: Cast, message: PeerKeys) -> PeerKeys:
    """Return keys for the graph that follows if the last node's coin is another."""
    *coins, last = message.coins
    keys = keys_for(cast, A, message.digests, (*coins, flipped(last)))
    assert keys is not None
    return keys


def _keys_of_other_list(cast: Cast, message: PeerKeys) -> PeerKeys:
    """Return keys for a list with another advert of some node that is then no neighbour."""
    lists = (
        (*message.digests[:place], (node, flipped(digest, index)), *message.digests[place + 1 :])
        for place, (node, digest) in enumerate(message.digests)
        for index in range(32)
        if node != A
    )
    found = (keys_for(cast, A, digests, message.coins) for digests in lists)
    return next(keys for keys in found if keys is not None)


def _agreement() -> list[Case]:
    def answer(name: str, about: str, rewrite: Rewrite, *, node: str, **rest: Any) -> Case:
        changes = down(PeerEncapsulations, rewrite, node=node)
        return Case(f"agreement-{name}", FOUR, about, ("M-26",), leaves(node), changes, **rest)

    graph = graph_of(FOUR)
    first = graph.circle[0]
    responder = next(node for node in graph.circle if len(graph.predecessors(node)) > 1)
    other = "node-d" if responder != D else C
    to_all = fields(capsules=lambda capsules: capsules[1:])
    extended = fields(agreed=lambda agreed: tuple(sorted((*agreed, other))))
    return [
        Case("agreement-capsule-missing", FOUR, "no capsule for one of the successors", ("M-26",),
             {"blamed": [first]}, up(Encapsulations, to_all, node=first)),
        Case("agreement-capsule-for-other", FOUR, "a capsule for a predecessor", ("M-26",),
             {"blamed": [first]}, up(Encapsulations, _to_predecessor, node=first)),
        answer("capsule-altered", "a bit of a relayed capsule is changed",
               fields(capsules=altered(0, 1)), node=responder),
        answer("confirmation-altered", "a bit of a relayed confirmation is changed",
               fields(capsules=altered(0, 2)), node=responder),
        answer("capsules-swapped", "two predecessors' capsules change places", _swapped,
               node=responder),
        answer("capsule-withheld", "a predecessor agreed, and its capsule is not there",
               fields(capsules=lambda capsules: capsules[1:]), node=responder),
        answer("without-me", "the list of who agreed lacks the receiver",
               lambda cast, message: replace(message, agreed=without(responder)(message.agreed)),
               node=responder),
        answer("unsorted", "the list of who agreed is not in order",
               fields(agreed=lambda agreed: agreed[::-1]), node=responder),
        answer("not-advertised", "the list of who agreed names a node without an advert",
               extended, node=responder, silent={other: (KeyAdvert, 0)}),
        Case("agreement-too-few", EIGHT, "four nodes agreed, five are needed", ("M-03",),
             leaves(A), down(PeerEncapsulations, _four_agreed)),
        Case("agreement-too-few-holders", TWELVE, "one neighbour agreed, not two", ("M-02",),
             leaves(A), down(PeerEncapsulations, _one_neighbour)),
    ]  # fmt: skip


def _to_predecessor(cast: Cast, message: Encapsulations) -> Encapsulations:
    graph = graph_of(cast.name)
    predecessor = min(graph.predecessors(graph.circle[0]))
    (_, *rest), *others = message.capsules
    return replace(message, capsules=tuple(sorted([(predecessor, *rest), *others])))


def _swapped(cast: Cast, message: PeerEncapsulations) -> PeerEncapsulations:
    (one, *first), (two, *second), *rest = message.capsules
    return replace(message, capsules=((one, *second), (two, *first), *rest))


def _one_neighbour(cast: Cast, message: PeerEncapsulations) -> PeerEncapsulations:
    gone = sorted(graph_of(cast.name).neighbours(A))[1:]
    agreed = tuple(node for node in message.agreed if node not in gone)
    capsules = tuple(capsule for capsule in message.capsules if capsule[0] not in gone)
    return replace(message, agreed=agreed, capsules=capsules)


def _four_agreed(cast: Cast, message: PeerEncapsulations) -> PeerEncapsulations:
    agreed = sorted({A, *sorted(graph_of(cast.name).neighbours(A))[:3]})
    capsules = tuple(capsule for capsule in message.capsules if capsule[0] in agreed)
    return replace(message, agreed=tuple(agreed), capsules=capsules)
