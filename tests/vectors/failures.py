"""One failure each: a message that breaks one rule, and who must notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from secagg.masking import adverts, pairs, views
from secagg.primitives.aead import seal
from secagg.primitives.signing import sign
from secagg.tags import KEY_ADVERT
from secagg.wire.codec import encode
from secagg.wire.messages import (
    AdvertList,
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
    UploadTurn,
)
from tests.vectors.rounds import Case, bases, graph_of
from tests.vectors.slow import COORDINATOR
from tests.vectors.stage import Cast, Change, Rewrite, drawn

__all__ = ["failures"]

FOUR, EIGHT, TWELVE = "complete-4", "sparse-8", "sparse-12"
A, B, C, D = "node-a", "node-b", "node-c", "node-d"
BLAMES_B = {"blamed": [B]}


def failures() -> list[Case]:
    """Return every case."""
    return [
        *_bytes(),
        *_adverts(),
        *_peer_keys(),
        *_coins(),
        *_agreement(),
        *_shares(),
        *_uploads(),
        *_survivors(),
        *_cosigners(),
        *_answers(),
        *_backups(),
    ]


# --- small tools ----------------------------------------------------------------------------------


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


BAD_KEYS: Mapping[str, tuple[str, dict[str, object]]] = {
    "suite": ("is of suite 2", {"suite": 2}),
    "small-order": ("has an X25519 key of small order", {"agreement_key": bytes(32)}),
    "kem-key": ("has an ML-KEM key with a coefficient of 4095", {"kem_key": b"\xff" * 1184}),
}


# --- cases ----------------------------------------------------------------------------------------


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
    renamed = fields(node_id=lambda _: C)
    return [
        *bad,
        case("signature", "a bit of the signature is changed", fields(signature=flipped), BLAMES_B),
        case("other-name", "the advert names another node than its sender", renamed, BLAMES_B),
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
        case("stranger", "the list names a node outside the cohort", stranger, "M-06"),
        case("too-few", "two nodes in the list, three are needed",
             fields(digests=lambda listed: listed[:2], adverts=lambda relayed: relayed[:1]), "M-03"),
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
        case("one-missing", "keys with one coin too few",
             down(PeerKeys, fields(coins=lambda coins: coins[:-1]))),
        case("shown-wrong", "keys with a coin that does not hash to its commitment",
             down(PeerKeys, fields(coins=lambda coins: (flipped(coins[0]), *coins[1:])))),
        case("other-list", "keys for another list than the coins were tossed for",
             down(PeerKeys, fields(digests=without("node-h"), coins=lambda coins: coins[:-1]))),
    ]  # fmt: skip


def _first_list(cast: Cast, message: AdvertList) -> AdvertList:
    """Return the second toss's list with the node that withheld its coin put back."""
    missing = next(node for node in cast.cohort if node not in dict(_pairs(message.entries)))
    advert = _advert(cast, missing)
    entry = (missing, adverts.advert_digest(advert), advert.coin_commitment)
    return replace(message, entries=tuple(sorted((*message.entries, entry))))


def _pairs(entries: Sequence[tuple[str, bytes, bytes]]) -> list[tuple[str, bytes]]:
    return [(node, digest) for node, digest, _ in entries]


def _keys_without_coins(cast: Cast, message: AdvertList) -> PeerKeys:
    return PeerKeys(message.round_id, tuple(_pairs(message.entries)), (), ())


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
        Case("agreement-too-few", FOUR, "two nodes agreed, three are needed", ("M-03",),
             leaves(responder), down(PeerEncapsulations, _two_agreed, node=responder)),
    ]  # fmt: skip


def _to_predecessor(cast: Cast, message: Encapsulations) -> Encapsulations:
    graph = graph_of(cast.name)
    predecessor = min(graph.predecessors(graph.circle[0]))
    (_, *rest), *others = message.capsules
    return replace(message, capsules=tuple(sorted([(predecessor, *rest), *others])))


def _swapped(cast: Cast, message: PeerEncapsulations) -> PeerEncapsulations:
    (one, *first), (two, *second), *rest = message.capsules
    return replace(message, capsules=((one, *second), (two, *first), *rest))


def _two_agreed(cast: Cast, message: PeerEncapsulations) -> PeerEncapsulations:
    graph = graph_of(cast.name)
    me = next(node for node in graph.circle if len(graph.predecessors(node)) > 1)
    sender = message.capsules[0][0]
    agreed = tuple(sorted((me, sender)))
    return replace(message, agreed=agreed, capsules=message.capsules[:1])


def _shares() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, rule: str = "M-09", **rest: Any) -> Case:
        changes = down(PeerShares, rewrite)
        return Case(f"shares-{name}", FOUR, about, (rule,), leaves(A), changes, **rest)

    everybody = list(bases()[FOUR].cohort)
    spoilt = {"sum": everybody, "blamed": [B]}
    return [
        Case("shares-box-missing", FOUR, "no box for one of the neighbours", ("M-08",), BLAMES_B,
             up(SealedShares, fields(boxes=without(C)))),
        Case("shares-box-altered", FOUR, "a box that does not open costs its shares, not the round",
             ("M-10",), spoilt, up(SealedShares, fields(boxes=altered(0, 1))), to_the_end=True),
        Case("shares-box-short", FOUR, "a box that opens and holds 65 bytes", ("M-10",), spoilt,
             up(SealedShares, _short_box), to_the_end=True),
        case("sharers-without-me", "the list of sharers lacks the receiver",
             fields(sharers=without(A))),
        case("sharers-unsorted", "the list of sharers is not in order",
             fields(sharers=lambda sharers: sharers[::-1])),
        case("sharers-not-agreed", "the list of sharers names a node that agreed on no key",
             fields(sharers=lambda sharers: (*sharers, D)), silent={D: (Encapsulations, 0)}),
        case("box-withheld", "a neighbour shared its secrets, and its box is not there",
             fields(boxes=lambda boxes: boxes[1:])),
        case("too-few", "two sharers, three are needed",
             fields(sharers=lambda sharers: sharers[:2], boxes=lambda boxes: boxes[:1]), "M-03"),
    ]  # fmt: skip


def _short_box(cast: Cast, message: SealedShares) -> SealedShares:
    return replace(message, boxes=((A, _box(cast, A, bytes(65))), *message.boxes[1:]))


def _box(cast: Cast, receiver: str, plaintext: bytes) -> bytes:
    """Return a box of node-b, sealed as it should be."""
    pair = (B, receiver) if receiver in graph_of(cast.name).successors(B) else (receiver, B)
    secret = _pair_secret(cast, pair, graph_seed_of(cast))
    return seal(secret.seal_key(sender=B, receiver=receiver), plaintext, b"")


def graph_seed_of(cast: Cast) -> bytes:
    """Return the graph seed of a complete graph over all of a cast."""
    digests = [(node, adverts.advert_digest(_advert(cast, node))) for node in cast.cohort]
    return adverts.graph_seed(cast.checked.offer_hash, digests, ())


def _keys(cast: Cast, node: str) -> pairs.NodeKeys:
    return pairs.NodeKeys(node, cast.secret(node, "agreement"))


def _advert(cast: Cast, node: str) -> KeyAdvert:
    agreement_key, kem_key = _keys(cast, node).public
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


def _pair_secret(cast: Cast, pair: tuple[str, str], seed: bytes) -> pairs.PairSecret:
    """Return the secret of (initiator, responder) from the responder's side."""
    initiator, responder = pair
    _, capsule = cast.encapsulate(*pair, _keys(cast, responder).public[1])
    binding = (*cast.checked.context, seed)
    return _keys(cast, responder).respond(_advert(cast, initiator), capsule, binding)


def _uploads() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *rules: str, nth: int = 1) -> Case:
        changes = up(MaskedChunk, rewrite, nth=nth)
        return Case(f"upload-{name}", FOUR, about, rules, BLAMES_B, changes)

    early = MaskedChunk(7, 0, bytes(64), bytes(24))
    last = bases()[TWELVE].cohort[-1]
    everybody = list(bases()[FOUR].cohort)
    again = refused(COORDINATOR, "replay", B)
    return [
        case("out-of-order", "chunk 1 before chunk 0", fields(index=lambda _: 1), "M-16"),
        case("gap", "chunk 2 after chunk 0", fields(index=lambda _: 2), "M-16", nth=2),
        case("short", "a chunk of seven coordinates where eight are due",
             fields(data=lambda data: data[:-4]), "M-16"),
        case("padding", "the padding of the last chunk is not zero", fields(data=flipped), "M-16",
             nth=2),
        case("signature", "a bit of the sharers' signature is changed",
             fields(sharers_signature=flipped), "M-24"),
        case("unsigned", "the first chunk without a signature",
             fields(sharers_signature=lambda _: b""), "M-24"),
        case("signed-later", "a later chunk with a signature",
             fields(sharers_signature=lambda _: bytes(64)), "M-24", nth=2),
        case("other-sharers", "the input was masked under another list of sharers", _other_sharers,
             "M-24"),
        Case("upload-chunk-twice", FOUR, "chunk 0 a second time changes nothing", ("M-16", "M-21"),
             {**again, "sum": everybody}, up(MaskedChunk, twice(B)), to_the_end=True),
        Case("upload-before-turn", TWELVE, "a chunk of a node whose turn it is not yet", ("M-22",),
             refused(COORDINATOR, "protocol", last),
             up(MaskedChunk, lambda cast, message: [(last, early)])),
        Case("upload-turn-early", FOUR, "the turn to upload comes before the shares", ("M-13",),
             leaves(A), down(PeerShares, lambda cast, message: UploadTurn(7))),
        Case("upload-turn-twice", FOUR, "the turn to upload comes twice", ("M-13",),
             leaves(A), down(UploadTurn, twice(COORDINATOR))),
    ]  # fmt: skip


def _other_sharers(cast: Cast, message: MaskedChunk) -> MaskedChunk:
    digest = views.sharers_digest(graph_seed_of(cast), (A, B, C))
    signature = views.sign_sharers(cast.checked, cast.identities[B], digest)
    return replace(message, sharers_signature=signature)


def _survivors() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        changes = down(Survivors, rewrite)
        return Case(f"survivors-{name}", FOUR, about, rules, leaves(A), changes)

    graph = graph_of(EIGHT)
    start = graph.place[A]
    gap = {graph.circle[(start + step) % 8] for step in (3, 4)}
    signed = "sharers_signatures"
    return [
        case("too-few", "two survivors, three are needed",
             fields(survivors=lambda nodes: nodes[:2], sharers_signatures=lambda each: each[:1]),
             "M-03"),
        case("without-me", "the set lacks the receiver", fields(survivors=without(A)), "M-11"),
        case("unsorted", "the set is not in order", fields(survivors=lambda nodes: nodes[::-1]),
             "M-11"),
        Case("survivors-not-sharer", FOUR, "the set names a node that shared no secrets",
             ("M-11",), leaves(A), down(Survivors, fields(survivors=lambda nodes: (*nodes, D))),
             silent={D: (SealedShares, 0)}),
        case("signature-missing", "the sharers' signature of a neighbour is missing",
             fields(**{signed: lambda each: each[1:]}), "M-24"),
        case("signature-superfluous", "the receiver's own sharers' signature is there as well",
             lambda cast, message: replace(
                 message, sharers_signatures=((A, bytes(64)), *message.sharers_signatures)),
             "M-24"),
        case("signature-forged", "a bit of a neighbour's sharers' signature is changed",
             fields(**{signed: altered(0, 1)}), "M-24"),
        case("split-sharers", "a neighbour masked under another list of sharers, and signed it",
             _split_sharers, "M-24"),
        Case("survivors-gap", EIGHT, "a window of three places keeps one survivor", ("M-25",),
             leaves(A), down(Survivors, lambda cast, message: _gap(message, gap))),
    ]  # fmt: skip


def _split_sharers(cast: Cast, message: Survivors) -> Survivors:
    digest = views.sharers_digest(graph_seed_of(cast), (A, B, C))
    signature = views.sign_sharers(cast.checked, cast.identities[B], digest)
    signatures = ((B, signature), *message.sharers_signatures[1:])
    return replace(message, sharers_signatures=signatures)


def _gap(message: Survivors, gap: set[str]) -> Survivors:
    return replace(
        message,
        survivors=tuple(node for node in message.survivors if node not in gap),
        sharers_signatures=tuple(each for each in message.sharers_signatures if each[0] not in gap),
    )


def _cosigners() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        changes = down(UnmaskRequest, rewrite)
        return Case(f"cosigners-{name}", FOUR, about, rules, leaves(A), changes)

    repeated = fields(signatures=lambda each: (each[0], each[0], *each[1:2]))
    outsider = fields(signatures=lambda each: (*each, (D, bytes(64))))
    return [
        Case("cosigners-forged-upwards", FOUR, "a bit of a co-signature is changed", ("M-11",),
             BLAMES_B, up(SurvivorSignature, fields(signature=flipped))),
        case("too-few", "two co-signatures, three are needed",
             fields(signatures=lambda each: each[:-1]), "M-03", "M-11"),
        case("repeated", "one of three co-signatures stands there twice", repeated, "M-11"),
        case("forged", "a bit of a relayed co-signature is changed",
             fields(signatures=altered(1, 1)), "M-11"),
        case("other-view", "a neighbour co-signed another survivor set", _other_view, "M-11"),
        Case("cosigners-not-survivor", FOUR, "a co-signature of a node outside the survivors",
             ("M-11",), leaves(A), down(UnmaskRequest, outsider), silent={D: (MaskedChunk, 0)}),
    ]  # fmt: skip


def _other_view(cast: Cast, message: UnmaskRequest) -> UnmaskRequest:
    digest = views.sharers_digest(graph_seed_of(cast), cast.cohort)
    view = views.view_digest(digest, (A, B, C))
    signature = views.sign_survivors(cast.checked, cast.identities[B], view)
    first, _, *rest = message.signatures
    return replace(message, signatures=(first, (B, signature), *rest))


def _answers() -> list[Case]:
    everybody = list(bases()[FOUR].cohort)
    wrong = fields(self_shares=altered(2, 1))
    key_share = fields(key_shares=lambda _: ((C, bytes(33)),))
    return [
        Case("answer-wrong-share", FOUR, "one wrong share among four: its holder is found",
             ("M-19",), {"sum": everybody, "blamed": [B]}, up(UnmaskAnswer, wrong),
             to_the_end=True),
        Case("answer-wrong-share-of-three", FOUR, "one wrong share among three: the round is lost",
             ("M-19",), {"failed": "bad_shares"}, up(UnmaskAnswer, wrong),
             {D: (UnmaskAnswer, 0)}, to_the_end=True),
        Case("answer-dealer-lies", FOUR, "shares that open and fit no commitment: the round is lost",
             ("M-19",), {"failed": "bad_shares"}, up(SealedShares, _wrong_dealing),
             to_the_end=True),
        Case("answer-both-shares", FOUR, "both shares of a survivor", ("M-12",), BLAMES_B,
             up(UnmaskAnswer, key_share)),
        Case("answer-second-request", FOUR, "a second request after the answer", ("M-13", "M-28"),
             leaves(A), down(UnmaskRequest, twice(COORDINATOR))),
        Case("answer-twice", FOUR, "a second answer", ("M-21",), refused(COORDINATOR, "replay", B),
             up(UnmaskAnswer, twice(B))),
    ]  # fmt: skip


def _wrong_dealing(cast: Cast, message: SealedShares) -> SealedShares:
    boxes = [
        (node, _box(cast, node, drawn(node, "wrong share") * 2 + bytes(2))) for node in (A, C, D)
    ]
    return replace(message, boxes=tuple(boxes))


def _backups() -> list[Case]:
    silent = {B: (MaskedChunk, 0)}
    failed = {"failed": "bad_shares", "blamed": [B]}

    def case(name: str, about: str, rewrite: Rewrite) -> Case:
        changes = up(SealedShares, rewrite)
        return Case(
            f"backup-{name}", FOUR, about, ("M-27",), failed, changes, silent, to_the_end=True
        )

    return [
        case("altered", "the backup of a node that drops out does not open",
             fields(backup=flipped)),
        case("short", "the backup opens and lacks a seed",
             lambda cast, message: replace(message, backup=_backup(cast, 2))),
        case("wrong-seeds", "the backup holds seeds that do not fit the confirmations",
             lambda cast, message: replace(message, backup=_backup(cast, 3))),
    ]  # fmt: skip


def _backup(cast: Cast, count: int) -> bytes:
    seeds = [bytes([index]) * 32 for index in range(count)]
    return pairs.seal_backup(cast.secret(B, "round_secret"), cast.checked.context, B, seeds)
