"""One failure each, from the shares on: uploads, survivors, answers, backups."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from secagg.masking import pairs, views
from secagg.primitives.aead import seal
from secagg.wire.messages import (
    Encapsulations,
    MaskedChunk,
    Message,
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
from tests.vectors.stage import Cast, Rewrite, drawn
from tests.vectors.tools import (
    BLAMES_B,
    EIGHT,
    FOUR,
    TWELVE,
    A,
    B,
    C,
    D,
    altered,
    down,
    fields,
    flipped,
    graph_seed_of,
    leaves,
    pair_secret_of,
    refused,
    twice,
    up,
    without,
)

__all__ = ["late_failures"]


def late_failures() -> list[Case]:
    """Return every case."""
    return [
        *_shares(),
        *_uploads(),
        *_survivors(),
        *_cosigners(),
        *_answers(),
        *_backups(),
    ]


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
        Case("shares-too-few", EIGHT, "four sharers, five are needed", ("M-03",), leaves(A),
             down(PeerShares, _four_sharers)),
        Case("shares-too-few-holders", TWELVE, "one neighbour shared, two are needed", ("M-09",),
             leaves(A), down(PeerShares, _one_neighbour)),
    ]  # fmt: skip


def _one_neighbour(cast: Cast, message: PeerShares) -> PeerShares:
    gone = sorted(graph_of(cast.name).neighbours(A))[1:]
    sharers = tuple(node for node in message.sharers if node not in gone)
    return replace(
        message, sharers=sharers, boxes=tuple(b for b in message.boxes if b[0] not in gone)
    )


def _four_sharers(cast: Cast, message: PeerShares) -> PeerShares:
    sharers = sorted({A, *sorted(graph_of(cast.name).neighbours(A))[:3]})
    boxes = tuple(box for box in message.boxes if box[0] in sharers)
    return replace(message, sharers=tuple(sharers), boxes=boxes)


def _short_box(cast: Cast, message: SealedShares) -> SealedShares:
    return replace(message, boxes=((A, _box(cast, A, bytes(65))), *message.boxes[1:]))


def _pair(cast: Cast, peer: str) -> pairs.PairSecret:
    """Return what node-b shares with a peer."""
    pair = (B, peer) if peer in graph_of(cast.name).successors(B) else (peer, B)
    return pair_secret_of(cast, pair, graph_seed_of(cast))


def _box(cast: Cast, receiver: str, plaintext: bytes) -> bytes:
    """Return a box of node-b, sealed as it should be."""
    secret = _pair(cast, receiver)
    return seal(secret.seal_key(sender=B, receiver=receiver), plaintext, b"")


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
    distant = min(set(graph.circle) - graph.neighbours(A) - {A})

    def joined(nodes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted((*nodes, distant)))

    return [
        case("too-few", "two survivors, three are needed",
             fields(survivors=lambda nodes: nodes[:2], sharers_signatures=lambda each: each[:1]),
             "M-03"),
        case("without-me", "the set lacks the receiver", fields(survivors=without(A)), "M-11"),
        case("unsorted", "the set is not in order", fields(survivors=lambda nodes: nodes[::-1]),
             "M-11"),
        Case("survivors-not-sharer", EIGHT, "the set names a node that shared no secrets",
             ("M-11",), leaves(A), down(Survivors, fields(survivors=joined)),
             silent={distant: (SealedShares, 0)}),
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
        case("second-view", "another survivor set after the co-signature", _second_view,
             "M-11", "M-13", "M-28"),
        Case("survivors-gap", EIGHT, "a window of three places keeps one survivor", ("M-25",),
             leaves(A), down(Survivors, lambda cast, message: _gap(message, gap))),
    ]  # fmt: skip


def _split_sharers(cast: Cast, message: Survivors) -> Survivors:
    digest = views.sharers_digest(graph_seed_of(cast), (A, B, C))
    signature = views.sign_sharers(cast.checked, cast.identities[B], digest)
    signatures = ((B, signature), *message.sharers_signatures[1:])
    return replace(message, sharers_signatures=signatures)


def _second_view(cast: Cast, message: Survivors) -> list[tuple[str, Message | bytes]]:
    """Return the survivors, and then a set without node-d that is well proven too."""
    return [(COORDINATOR, message), (COORDINATOR, _gap(message, {D}))]


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
             ("M-11",), leaves(A), down(UnmaskRequest, _outsider), silent={D: (MaskedChunk, 0)}),
    ]  # fmt: skip


def _outsider(cast: Cast, message: UnmaskRequest) -> UnmaskRequest:
    """Return the request with a good signature of node-d under the view of the others."""
    digest = views.sharers_digest(graph_seed_of(cast), cast.cohort)
    view = views.view_digest(digest, (A, B, C))
    signature = views.sign_survivors(cast.checked, cast.identities[D], view)
    return replace(message, signatures=(*message.signatures, (D, signature)))


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
        Case("answer-too-few-shares", FOUR, "a box did not open, and one more answer is missing",
             ("M-10", "M-19"), {"failed": "bad_shares", "blamed": [B]},
             up(SealedShares, fields(boxes=altered(0, 1))), {D: (UnmaskAnswer, 0)},
             to_the_end=True),
        Case("answer-dealer-lies", FOUR, "shares that open and fit no commitment lose the round",
             ("M-19",), {"failed": "bad_shares"}, up(SealedShares, _wrong_dealing),
             to_the_end=True),
        Case("answer-both-shares", FOUR, "both shares of a survivor", ("M-12",), BLAMES_B,
             up(UnmaskAnswer, key_share)),
        Case("answer-share-twice", FOUR, "the share of one owner stands there twice", ("M-12",),
             BLAMES_B, up(UnmaskAnswer, fields(self_shares=lambda each: (each[0], *each)))),
        Case("answer-wrong-key-share", "complete-5", "a wrong share of the node that dropped out",
             ("M-19",), {"sum": [A, B, D, "node-e"], "blamed": [B]},
             up(UnmaskAnswer, fields(key_shares=altered(0, 1))), {C: (MaskedChunk, 0)},
             to_the_end=True),
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
        case("long", "the backup opens and holds the seeds and one more",
             lambda cast, message: replace(message, backup=_long_backup(cast))),
        case("wrong-seeds", "the backup holds seeds that do not fit the confirmations",
             lambda cast, message: replace(message, backup=_backup(cast, 3))),
    ]  # fmt: skip


def _backup(cast: Cast, count: int) -> bytes:
    seeds = [bytes([index]) * 32 for index in range(count)]
    return pairs.seal_backup(cast.secret(B, "round_secret"), cast.checked.context, B, seeds)


def _long_backup(cast: Cast) -> bytes:
    seeds = [_pair(cast, node).mask_seed for node in (A, C, D)]
    secret = cast.secret(B, "round_secret")
    return pairs.seal_backup(secret, cast.checked.context, B, [*seeds, bytes(32)])
