"""One failure each that a node of ckks meets: keys, turns, survivors, shares, requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from secagg.ckks import views
from secagg.wire.messages import (
    CommitteeKeys,
    DealtShares,
    Message,
    OpenRequest,
    SealingKey,
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
    dealt,
    resigned,
    resigned_key,
    shown,
    view_of,
)
from tests.vectors.rounds import Case
from tests.vectors.slow import COORDINATOR
from tests.vectors.stage import Change, Rewrite
from tests.vectors.tools import (
    A,
    B,
    C,
    D,
    altered,
    down,
    fields,
    flipped,
    leaves,
    twice,
    without,
)

__all__ = ["node_failures"]

E = "node-e"


def node_failures() -> list[Case]:
    """Return every case."""
    return [*_keys(), *_turns(), *_survivors(), *_dealt(), *_requests()]


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
             shown(A, resigned(agreement_key=b"\x09" + bytes(31))), "H-04"),
        case("signature", "a bit of a relayed key's signature is changed",
             shown(B, lambda cast, key: replace(key, signature=flipped(key.signature))), "H-04"),
        case("replaced", "a key of the coordinator's own in the place of node-b's",
             shown(B, lambda cast, key: replace(key, agreement_key=b"\x09" + bytes(31))), "H-04"),
        case("suite", "a relayed key of suite 2, well signed", shown(B, resigned(suite=2)),
             "H-04"),
        case("small-order", "a relayed X25519 key of small order, well signed",
             shown(B, resigned(agreement_key=bytes(32))), "H-04"),
        case("kem-key", "a relayed ML-KEM key that is not reduced, well signed",
             shown(B, resigned(kem_key=b"\xff" * 1184)), "H-04"),
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


def _survivors() -> list[Case]:
    def case(name: str, base: str, about: str, rewrite: Rewrite, *rules: str) -> Case:
        changes = down(WeightedSurvivors, rewrite)
        return Case(f"ckks-survivors-{name}", base, about, rules, leaves(A), changes)

    def stranger(cast: Any, message: WeightedSurvivors) -> Message:
        return replace(message, survivors=(A, B, "node-x"))

    def weighing(*weights: int) -> Rewrite:
        return fields(weights=lambda _: bytes(weights))

    def second_view(cast: Any, message: WeightedSurvivors) -> list[tuple[str, Message | bytes]]:
        again = replace(message, survivors=(B, C, D, E), weights=bytes((1, 1, 1, 1)))
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
        case("too-few", FIVE, "three survivors, four are needed",
             fields(survivors=lambda nodes: nodes[:3], weights=lambda weights: weights[:3]),
             "H-09"),
        Case("ckks-survivors-no-input", WEIGHTED,
             "the set names node-e, which has not uploaded", ("H-09",), leaves(E), (named,),
             weights=WITHOUT_E),
        Case("ckks-survivors-without-outsider", OUTSIDER,
             "the set leaves out node-b, which has uploaded and has no other part", ("H-10",),
             leaves(B), (left_out,)),
        case("weight-missing", FIVE, "four weights for five survivors", weighing(1, 1, 1, 1),
             "H-11"),
        case("weight-too-many", THREE, "four weights for three survivors",
             weighing(1, 1, 1, 1), "H-11"),
        case("weight-zero", WEIGHTED, "a survivor of weight 0", weighing(2, 2, 2, 2, 0), "H-11"),
        case("weight-private", THREE, "a weight of 2 where nobody weighs", weighing(2, 2, 2),
             "H-11"),
        case("weight-above", WEIGHTED, "a weight of 3 where 2 is the greatest",
             weighing(3, 3, 3, 3, 3), "H-11"),
        case("other-round", THREE, "the set in the name of the round before",
             fields(round_id=lambda _: 6), "H-17"),
        case("second-view", FIVE, "after the co-signature another set, without node-a",
             second_view, "H-10", "H-12"),
        Case("ckks-survivors-uneven", WEIGHTED, "weights 2, 1, 2 and 1 are too uneven",
             ("H-11",), leaves(A), down(WeightedSurvivors, uneven)),
        Case("ckks-survivors-outsider-twice", OUTSIDER,
             "the set once more to node-b, whose part is over", ("H-12", "H-17"), leaves(B),
             down(WeightedSurvivors, twice(COORDINATOR), node=B)),
    ]  # fmt: skip


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
