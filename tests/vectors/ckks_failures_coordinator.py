"""One failure each that the coordinator of ckks meets: keys, uploads, signatures, answers, sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from secagg.ckks import views
from secagg.ckks.sealing import make_key
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    Message,
    SealedSecret,
    SealingKey,
    SumShare,
    SurvivorSignature,
)
from tests.vectors.ckks_cast import (
    FIVE,
    THREE,
    WEIGHTED,
    ckks_casts,
)
from tests.vectors.ckks_rounds import WITHOUT_E
from tests.vectors.ckks_tools import (
    announced,
    keys_of_node,
    moved_residues,
    moved_shares,
    resigned,
    resigned_key,
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
    fields,
    flipped,
    refused,
    twice,
    up,
)

__all__ = ["coordinator_failures"]

E = "node-e"


def coordinator_failures() -> list[Case]:
    """Return every case."""
    return [*_announcements(), *_uploads(), *_views(), *_answers(), *_sums()]


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
        case("suite", "suite 2 over a signature under suite 1",
             announced(lambda cast, key: replace(key, suite=2)), "H-04"),
        case("small-order", "an X25519 key of small order, well signed",
             announced(resigned(agreement_key=bytes(32))), "H-04"),
        case("kem-key", "an ML-KEM key with a coefficient that is not reduced, well signed",
             announced(resigned(kem_key=b"\xff" * 1184)), "H-04"),
        case("other-name", "node-c's key, signed by node-c", announced(_key_of_c), "H-04"),
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


def _key_of_c(cast: Any, key: SealingKey) -> SealingKey:
    return make_key(cast.checked, cast.identities[C], keys_of_node(cast, C))


def _announced_again(cast: Any, message: SealedSecret) -> Message:
    public = keys_of_node(cast, B).public
    key = resigned_key(cast, SealingKey(B, 1, *public, bytes(64)))
    return Announcement(message.round_id, key, None)


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
