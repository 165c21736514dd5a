"""One failure each, in the rounds of ckks: keys, uploads, survivors, shares, answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from secagg.ckks import views
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShares,
    Message,
    OpenRequest,
    SealedSecret,
    SealingKey,
    SumShare,
    SurvivorSignature,
    UploadTurn,
    WeightedSurvivors,
)
from tests.vectors.ckks_cast import (
    FIVE,
    OUTSIDER,
    THREE,
    WEIGHTED,
    ckks_casts,
)
from tests.vectors.ckks_rounds import WITHOUT_E
from tests.vectors.ckks_tools import (
    announced,
    dealt,
    keys_of_node,
    moved_residues,
    moved_shares,
    resigned_key,
    shown,
    view_of,
)
from tests.vectors.rounds import Case
from tests.vectors.slow import COORDINATOR
from tests.vectors.stage import Change, Rewrite
from tests.vectors.tools import (
    BLAMES_B,
    A,
    B,
    C,
    D,
    altered,
    down,
    fields,
    flipped,
    leaves,
    refused,
    twice,
    up,
    without,
)

__all__ = ["ckks_failures"]

E = "node-e"


def ckks_failures() -> list[Case]:
    """Return every case."""
    return [
        *_announcements(),
        *_keys(),
        *_turns(),
        *_uploads(),
        *_survivors(),
        *_views(),
        *_dealt(),
        *_requests(),
        *_answers(),
        *_sums(),
    ]


def _resigned(**changes: Any) -> Callable[[Any, SealingKey], SealingKey]:
    return lambda cast, key: resigned_key(cast, key, **changes)


def _announcements() -> list[Case]:
    def case(
        name: str,
        about: str,
        rewrite: Rewrite,
        rule: str,
        *,
        expect: dict[str, Any] = BLAMES_B,
        base: str = THREE,
    ) -> Case:
        changes = up(Announcement, rewrite)
        return Case(f"ckks-announcement-{name}", base, about, (rule,), expect, changes)

    def of_another_round(cast: Any, message: Announcement) -> Message:
        return replace(message, round_id=6)

    def of_a_stranger(cast: Any, message: Announcement) -> list[tuple[str, Message | bytes]]:
        return [("node-x", message)]

    out_of_phase = "an announcement when the committee's keys are out already"
    return [
        case("signature", "a bit of the signature is changed",
             announced(lambda cast, key: replace(key, signature=flipped(key.signature))), "H-04"),
        case("suite", "suite 2, well signed", announced(_resigned(suite=2)), "H-04"),
        case("small-order", "an X25519 key of small order, well signed",
             announced(_resigned(agreement_key=bytes(32))), "H-04"),
        case("kem-key", "an ML-KEM key with a coefficient that is not reduced, well signed",
             announced(_resigned(kem_key=b"\xff" * 1184)), "H-04"),
        case("other-name", "a good key of node-b's in the name of node-c",
             announced(lambda cast, key: replace(key, node_id=C)), "H-04"),
        case("distance", "a distance where nobody asked for one",
             lambda cast, message: replace(message, distance=4), "H-16"),
        case("no-distance", "no distance where the coordinator weighs",
             lambda cast, message: replace(message, distance=None), "H-16", base=WEIGHTED),
        case("other-round", "an announcement of the round before", of_another_round, "H-17",
             expect=refused(COORDINATOR, "replay", B)),
        case("twice", "the announcement a second time", twice(B), "H-17",
             expect=refused(COORDINATOR, "replay", B)),
        case("stranger", "from a node that is not in the cohort", of_a_stranger, "H-17",
             expect=refused(COORDINATOR, "protocol", "node-x")),
        Case("ckks-announcement-out-of-phase", THREE, out_of_phase, ("H-17",),
             refused(COORDINATOR, "protocol", B), up(SealedSecret, _announced_again)),
    ]  # fmt: skip


def _announced_again(cast: Any, message: SealedSecret) -> Message:
    public = keys_of_node(cast, B).public
    key = resigned_key(cast, SealingKey(B, 1, *public, bytes(64)))
    return Announcement(message.round_id, key, None)


def _keys() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, rule: str, base: str = THREE) -> Case:
        changes = down(CommitteeKeys, rewrite)
        return Case(f"ckks-keys-{name}", base, about, (rule,), leaves(A), changes)

    def with_outsider(cast: Any, message: CommitteeKeys) -> Message:
        key = resigned_key(cast, message.keys[0], node_id=B)
        return replace(message, keys=tuple(sorted((*message.keys, key), key=_name)))

    def without_me(message: CommitteeKeys) -> Message:
        return replace(message, keys=message.keys[1:])

    def fewest(cast: Any, message: CommitteeKeys) -> Message:
        return replace(message, keys=message.keys[:1])

    return [
        case("unsorted", "the keys are not in order",
             fields(keys=lambda keys: keys[::-1]), "H-03"),
        case("twice-the-same", "one key stands there twice",
             fields(keys=lambda keys: (keys[0], *keys)), "H-03"),
        case("outsider", "a good key of node-b, which is not in the committee", with_outsider,
             "H-03", OUTSIDER),
        case("too-few", "one key, two members have to answer", fewest, "H-03"),
        case("without-me", "the receiver's own key is missing, and two are there",
             lambda cast, message: without_me(message), "H-03"),
        case("own-key", "the receiver's own key is another, well signed by it",
             shown(A, _resigned(agreement_key=b"\x09" + bytes(31))), "H-04"),
        case("signature", "a bit of a relayed key's signature is changed",
             shown(B, lambda cast, key: replace(key, signature=flipped(key.signature))), "H-04"),
        case("replaced", "a key of the coordinator's own in the place of node-b's",
             shown(B, lambda cast, key: replace(key, agreement_key=b"\x09" + bytes(31))), "H-04"),
        case("suite", "a relayed key of suite 2, well signed", shown(B, _resigned(suite=2)),
             "H-04"),
        case("small-order", "a relayed X25519 key of small order, well signed",
             shown(B, _resigned(agreement_key=bytes(32))), "H-04"),
        case("kem-key", "a relayed ML-KEM key that is not reduced, well signed",
             shown(B, _resigned(kem_key=b"\xff" * 1184)), "H-04"),
        case("other-round", "the keys in the name of the round before",
             fields(round_id=lambda _: 6), "H-17"),
        case("twice", "the keys a second time", twice(COORDINATOR), "H-17"),
    ]  # fmt: skip


def _name(key: SealingKey) -> str:
    return key.node_id


def _turns() -> list[Case]:
    def early(cast: Any, message: CommitteeKeys) -> Message:
        return UploadTurn(message.round_id)

    return [
        Case("ckks-turn-early", THREE, "the turn to upload before the keys", ("H-17",),
             leaves(A), down(CommitteeKeys, early)),
        Case("ckks-turn-twice", THREE, "the turn to upload a second time", ("H-06", "H-17"),
             leaves(A), down(UploadTurn, twice(COORDINATOR))),
    ]  # fmt: skip


def _uploads() -> list[Case]:
    def case(
        name: str,
        kind: type[Message],
        about: str,
        rewrite: Rewrite,
        *,
        expect: dict[str, Any] = BLAMES_B,
        to_the_end: bool = False,
    ) -> Case:
        changes = up(kind, rewrite)
        return Case(
            f"ckks-upload-{name}", THREE, about, ("H-08",), expect, changes, to_the_end=to_the_end
        )

    second = refused(COORDINATOR, "replay", B)
    three = [
        case("other-boxes", SealedSecret, "the boxes from the second one on",
             fields(start=lambda _: 1, boxes=lambda boxes: boxes[1:])),
        case("box-missing", SealedSecret, "one box of two", fields(boxes=lambda boxes: boxes[:1])),
        case("box-too-many", SealedSecret, "a third box, for itself",
             fields(boxes=lambda boxes: (*boxes, boxes[0]))),
        case("box-short", SealedSecret, "a box that lacks a byte",
             fields(boxes=lambda boxes: (boxes[0], boxes[1][:-1]))),
        case("boxes-twice", SealedSecret, "the boxes a second time", twice(B), expect=second),
        case("chunk-first", SealedSecret, "a chunk of the ciphertext, and no boxes before it",
             lambda cast, message: [], expect={**BLAMES_B, "failed": "too_few_inputs"},
             to_the_end=True),
        case("chunk-gap", CipherChunk, "chunk 1 where there is but one",
             fields(index=lambda _: 1)),
        case("chunk-short", CipherChunk, "a chunk that lacks all but a byte",
             fields(data=lambda data: data[:1])),
        case("residue", CipherChunk, "the first residue is the modulus itself",
             fields(data=_with_modulus)),
        case("twice", CipherChunk, "the chunk that ended the upload a second time", twice(B),
             expect=second),
    ]  # fmt: skip
    about = "node-e, whose weight is 0, uploads"
    outsider = [
        Case("ckks-upload-weight-zero", WEIGHTED, about, ("H-08", "H-17"),
             refused(COORDINATOR, "protocol", E), up(SealedSecret, _in_the_name_of(E)),
             weights=WITHOUT_E),
        Case("ckks-upload-refused-member", FIVE,
             "a refused upload: its sender stays in the committee, and co-signs and answers",
             ("H-08", "H-12"), {"blamed": [B], "sum": [A, C, D, E]},
             up(CipherChunk, fields(data=lambda data: data[:1])), to_the_end=True),
    ]  # fmt: skip
    return [*three, *outsider]


def _with_modulus(data: bytes) -> bytes:
    """Return a chunk of 43 bits a residue, the first of them q; 32 of its bits come first."""
    q = 8_796_092_878_849
    planes = bytearray(data)
    planes[:4] = (q % (1 << 32)).to_bytes(4, "little")
    start = 4 * 2048
    above = q >> 32
    planes[start] = above % 256
    planes[start + 2048] = planes[start + 2048] & ~3 | above >> 8 & 3
    planes[start + 2048 + 512] = planes[start + 2048 + 512] & ~1 | above >> 10
    return bytes(planes)


def _in_the_name_of(node: str) -> Rewrite:
    def rewrite(cast: Any, message: Message) -> list[tuple[str, Message | bytes]]:
        return [(node, message), (B, message)]

    return rewrite


def _survivors() -> list[Case]:
    def case(name: str, base: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        changes = down(WeightedSurvivors, rewrite)
        return Case(f"ckks-survivors-{name}", base, about, rules, leaves(A), changes)

    def stranger(cast: Any, message: WeightedSurvivors) -> Message:
        return replace(message, survivors=(A, B, "node-x"))

    def weighing(*weights: int) -> Rewrite:
        return fields(weights=lambda _: bytes(weights))

    def twice_with_weight(
        cast: Any, message: WeightedSurvivors
    ) -> list[tuple[str, Message | bytes]]:
        again = replace(message, survivors=(A, B, C), weights=bytes((1, 1, 1)))
        return [(COORDINATOR, message), (COORDINATOR, again)]

    def uneven(cast: Any, message: WeightedSurvivors) -> Message:
        return replace(message, survivors=(A, B, C, D), weights=bytes((2, 1, 2, 1)))

    def with_e(cast: Any, message: WeightedSurvivors) -> Message:
        return replace(message, survivors=(A, B, C, D, E), weights=bytes((2, 1, 2, 1, 1)))

    dropped = fields(survivors=without(B), weights=lambda weights: weights[:-1])
    named = Change(COORDINATOR, E, WeightedSurvivors, with_e)
    left_out = Change(COORDINATOR, B, WeightedSurvivors, dropped)
    return [
        case("unsorted", THREE, "the set is not in order",
             fields(survivors=lambda nodes: nodes[::-1]), "H-09"),
        case("stranger", THREE, "the set names a node outside the cohort", stranger, "H-09"),
        case("too-few", THREE, "two survivors, three are needed",
             fields(survivors=lambda nodes: nodes[:2], weights=lambda weights: weights[:2]),
             "H-09"),
        Case("ckks-survivors-no-input", WEIGHTED,
             "the set names node-e, which has not uploaded", ("H-09",), leaves(E), (named,),
             weights=WITHOUT_E),
        Case("ckks-survivors-without-outsider", OUTSIDER,
             "the set leaves out node-b, which has uploaded and has no other part", ("H-10",),
             leaves(B), (left_out,)),
        case("weight-missing", THREE, "two weights for three survivors", weighing(1, 1), "H-11"),
        case("weight-zero", WEIGHTED, "a survivor of weight 0", weighing(2, 2, 2, 2, 0), "H-11"),
        case("weight-private", THREE, "a weight of 2 where nobody weighs", weighing(2, 2, 2),
             "H-11"),
        case("weight-above", WEIGHTED, "a weight of 3 where 2 is the greatest",
             weighing(3, 3, 3, 3, 3), "H-11"),
        case("other-round", THREE, "the set in the name of the round before",
             fields(round_id=lambda _: 6), "H-17"),
        case("second-view", THREE, "another weighting after the co-signature", twice_with_weight,
             "H-10", "H-12"),
        Case("ckks-survivors-uneven", WEIGHTED, "weights 2, 1, 2 and 1 are too uneven",
             ("H-11",), leaves(A), down(WeightedSurvivors, uneven)),
        Case("ckks-survivors-outsider-twice", OUTSIDER,
             "the set once more to node-b, whose part is over", ("H-12", "H-17"), leaves(B),
             down(WeightedSurvivors, twice(COORDINATOR), node=B)),
    ]  # fmt: skip


def _views() -> list[Case]:
    signature = fields(signature=flipped)
    return [
        Case("ckks-view-forged", THREE, "a bit of a co-signature is changed", ("H-10",), BLAMES_B,
             up(SurvivorSignature, signature)),
        Case("ckks-view-other", THREE, "a co-signature under another weighting", ("H-10",),
             BLAMES_B, up(SurvivorSignature, _other_view)),
        Case("ckks-view-twice", THREE, "a co-signature a second time", ("H-12", "H-17"),
             refused(COORDINATOR, "replay", B), up(SurvivorSignature, twice(B))),
    ]  # fmt: skip


def _other_view(cast: Any, message: SurvivorSignature) -> Message:
    view = view_of(cast, {A: 1, B: 2, C: 1})
    return replace(message, signature=views.sign_view(cast.checked, cast.identities[B], view))


def _dealt() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *blamed: str) -> Case:
        expect = {"blamed": list(blamed), "sum": list(ckks_casts()[FIVE].cohort)}
        changes = down(DealtShares, rewrite)
        about = f"{about}: node-a has no answer but that"
        return Case(f"ckks-dealt-{name}", FIVE, about, ("H-05",), expect, changes, to_the_end=True)

    def ends(name: str, about: str, rewrite: Rewrite, rule: str) -> Case:
        changes = down(DealtShares, rewrite)
        return Case(f"ckks-dealt-{name}", FIVE, about, (rule,), leaves(A), changes)

    def swapped(cast: Any, message: DealtShares) -> Message:
        (*first, one), (*second, other), *rest = message.shares
        return replace(message, shares=((*first, other), (*second, one), *rest))

    def copied(cast: Any, message: DealtShares) -> Message:
        one, _, *rest = message.shares
        return replace(message, shares=(one, one, *rest))

    return [
        case("box", "a bit of the box of node-c is changed", dealt(1, 3), C),
        case("swapped", "the boxes of node-b and node-c are exchanged", swapped, B, C),
        ends("key", "a bit of the X25519 key of node-c is changed", dealt(1, 0), "H-05"),
        ends("kem-digest", "a bit of the hash of node-c's ML-KEM key is changed", dealt(1, 1),
             "H-05"),
        ends("signature", "a bit of the signature of node-c is changed", dealt(1, 2), "H-05"),
        ends("copied", "all that is node-b's stands in the place of node-c's too", copied,
             "H-05"),
        ends("start", "the shares from the second one on, said to be so",
             fields(start=lambda _: 1, shares=lambda shares: shares[1:]), "H-12"),
        ends("none", "no share at all", fields(shares=lambda _: ()), "H-12"),
        ends("too-many", "five shares of four dealers",
             fields(shares=lambda shares: (*shares, shares[0])), "H-12"),
    ]  # fmt: skip


def _requests() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        changes = down(OpenRequest, rewrite)
        return Case(f"ckks-request-{name}", FIVE, about, rules, leaves(A), changes)

    def early(cast: Any, message: DealtShares) -> Message:
        weights = dict.fromkeys(cast.cohort, 1)
        return OpenRequest(message.round_id, tuple(_cosigned(cast, weights, cast.cohort[:4])))

    def other_view(cast: Any, message: OpenRequest) -> Message:
        [other] = _cosigned(cast, dict.fromkeys((A, B, C, D), 1), (B,))
        first, _, *rest = message.signatures
        return replace(message, signatures=(first, other, *rest))

    def stranger(cast: Any, message: OpenRequest) -> Message:
        *first, (_, signature) = message.signatures
        return replace(message, signatures=(*first, ("node-x", signature)))

    about_early = "the request before the shares"
    return [
        case("too-few", "three co-signatures, four are needed",
             fields(signatures=lambda each: each[:-1]), "H-10"),
        case("repeated", "one of four co-signatures stands there twice",
             fields(signatures=lambda each: (each[0], *each[:3])), "H-10"),
        case("unsorted", "the co-signatures are not in order",
             fields(signatures=lambda each: each[::-1]), "H-10"),
        case("stranger", "a co-signer outside the cohort", stranger, "H-10"),
        case("forged", "a bit of a relayed co-signature is changed",
             fields(signatures=altered(1, 1)), "H-10"),
        case("other-view", "a good co-signature of node-b under another set", other_view, "H-10"),
        case("other-round", "the request in the name of the round before",
             fields(round_id=lambda _: 6), "H-17"),
        case("second", "a second request after the answer", twice(COORDINATOR), "H-12"),
        Case("ckks-request-early", FIVE, about_early, ("H-12", "H-17"), leaves(A),
             down(DealtShares, early)),
    ]  # fmt: skip


def _cosigned(cast: Any, weights: dict[str, int], nodes: Sequence[str]) -> list[tuple[str, bytes]]:
    view = view_of(cast, weights)
    return [(node, views.sign_view(cast.checked, cast.identities[node], view)) for node in nodes]


def _answers() -> list[Case]:
    def case(name: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        return Case(f"ckks-answer-{name}", FIVE, about, rules, BLAMES_B, up(SumShare, rewrite))

    return [
        *_lies(),
        case("empty", "neither a share nor dealers", fields(share=lambda _: b""), "H-12"),
        case("both", "a share, and a dealer whose share does not open",
             fields(unopened=lambda _: (C,)), "H-12"),
        case("unsorted", "dealers out of order",
             fields(share=lambda _: b"", unopened=lambda _: (D, C)), "H-12"),
        case("stranger", "a dealer who is none",
             fields(share=lambda _: b"", unopened=lambda _: ("node-x",)), "H-12"),
        case("itself", "itself as a dealer",
             fields(share=lambda _: b"", unopened=lambda _: (B,)), "H-12"),
        case("short", "a share that lacks a byte", fields(share=lambda share: share[:-1]), "H-12"),
        case("range", "a share with a value that is not in the field",
             fields(share=lambda share: b"\xf1\xff" + share[2:]), "H-12"),
        Case("ckks-answer-twice", FIVE, "an answer a second time", ("H-12", "H-17"),
             refused(COORDINATOR, "replay", B), up(SumShare, twice(B))),
    ]  # fmt: skip


def _lies() -> list[Case]:
    everybody = list(ckks_casts()[FIVE].cohort)
    wrong = fields(share=flipped)

    def case(name: str, about: str, expect: dict[str, Any], *liars: str) -> Case:
        changes = tuple(
            Change(node, COORDINATOR, SumShare, fields(share=_flipped_at(2 * index)))
            for index, node in enumerate(liars)
        )
        return Case(f"ckks-answer-{name}", FIVE, about, ("H-13",), expect, changes, to_the_end=True)

    accuses = fields(share=lambda _: b"", unopened=lambda _: (C,))
    return [
        case("wrong", "one wrong answer of five is corrected, and its sender named",
             {"sum": everybody, "blamed": [B]}, B),
        case("two-wrong", "two wrong answers of five, beyond decoding: t + l are right, and found",
             {"sum": everybody, "blamed": [B, C]}, B, C),
        case("three-wrong", "three wrong answers of five, and nobody to be named",
             {"failed": "bad_shares"}, B, C, D),
        Case("ckks-answer-three-agree", FIVE, "three wrong answers that agree with one more: as if "
             "shares were not those of the ciphertexts", ("H-14",), {"failed": "sum_out_of_range"},
             tuple(Change(node, COORDINATOR, SumShare, _joined(node)) for node in (B, C, D)),
             to_the_end=True),
        Case("ckks-answer-wrong-of-four", FIVE, "one wrong answer of four", ("H-13",),
             {"sum": everybody, "blamed": [B]}, up(SumShare, wrong), {E: (SumShare, 0)},
             to_the_end=True),
        Case("ckks-answer-wrong-of-three", THREE, "one wrong answer of three, two of them enough",
             ("H-13",), {"sum": [A, B, C], "blamed": [B]}, up(SumShare, wrong), to_the_end=True),
        Case("ckks-answer-accuses", FIVE, "node-b says that node-c's share does not open",
             ("H-13",), {"sum": everybody, "blamed": [C]}, up(SumShare, accuses),
             to_the_end=True),
    ]  # fmt: skip


def _flipped_at(index: int) -> Callable[[bytes], bytes]:
    return lambda share: flipped(share, index)


def _joined(node: str) -> Rewrite:
    """Return a rewrite by which node-b, node-c and node-d together with node-a lie on polynomials.

    They add x − 1 at their points to the first one: that is node-a's answer, and not node-e's.
    """

    def rewrite(cast: Any, message: SumShare) -> Message:
        prime = cast.terms.committee.modulus
        first = int.from_bytes(message.share[:2], "little") + cast.cohort.index(node)
        return replace(message, share=(first % prime).to_bytes(2, "little") + message.share[2:])

    return rewrite


def _sums() -> list[Case]:
    failed = {"failed": "sum_out_of_range"}
    exchanged = fields(boxes=lambda boxes: (boxes[1], boxes[2], boxes[0], boxes[3]))

    def case(name: str, about: str, rewrite: Rewrite, kind: type[Message] = CipherChunk) -> Case:
        changes = up(kind, rewrite)
        return Case(f"ckks-sum-{name}", THREE, about, ("H-14",), failed, changes, to_the_end=True)

    def error(cast: Any, message: CipherChunk) -> Any:
        opened = sum(cast.error_at(node, 5) for node in cast.cohort)
        return moved_residues({5: -64 - opened})(cast, message)

    return [
        case("below", "value 0, the least that three can add up to, less one",
             moved_residues({0: -1 << 7})),
        case("above", "value 1, the greatest that three can add up to, and one more",
             moved_residues({1: 1 << 7})),
        case("unused", "a value in a place beyond the vector", moved_residues({21: 1 << 7})),
        case("error", "an error of -64, of three errors that are 21 at most", error),
        case("dealer", "a dealer seals shares of another secret, and they agree",
             moved_shares(B, 1), SealedSecret),
        Case("ckks-sum-boxes", FIVE, "a dealer exchanges boxes: three members cannot open theirs, "
             "and two answers are too few", ("H-13", "H-15"),
             {"blamed": [B], "failed": "too_few_answers"}, up(SealedSecret, exchanged),
             to_the_end=True),
    ]  # fmt: skip
