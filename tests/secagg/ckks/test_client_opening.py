"""A node's rules from the survivor set to its answer, and in every phase."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from secagg.ckks.client import Phase
from secagg.ckks.views import keys_digest, view_digest
from secagg.errors import RemoteProtocolError
from secagg.steps import InputRejected, ViewFixed
from secagg.types import NodeId
from secagg.wire.messages import (
    CommitteeKeys,
    DealtShares,
    Message,
    OpenRequest,
    Survivors,
    UploadTurn,
)
from tests.support.ckks import ByHand, ckks_setup, new_client, refused, share_of, terms_in
from tests.support.messages import changed

SETUP = ckks_setup(5)
COHORT = SETUP.cohort
ME = COHORT[1]
OUTSIDER_SETUP = ckks_setup(10, committee={"size": 6, "threshold": 2})
WEIGHING = ckks_setup(6, max_weight=4, weighs=True)


# --- the survivors --------------------------------------------------------------------------------


@pytest.mark.req("H-09")
@pytest.mark.parametrize(
    ("survivors", "what"),
    [
        ((), "needed"),
        (COHORT[1:2], "needed"),
        (COHORT[:2], "needed"),
        (COHORT[:3], "needed"),
        ((*COHORT[:4], COHORT[3]), "sorted"),
        ((COHORT[1], COHORT[0], *COHORT[2:]), "sorted"),
        ((*COHORT, "stranger"), "part of the cohort"),
        ((*COHORT[:3], "stranger"), "part of the cohort"),
    ],
)
def test_a_survivor_set_is_a_sorted_part_of_the_cohort_of_a_quorum(
    survivors: tuple[NodeId, ...], what: str
) -> None:
    by_hand = ByHand(SETUP).deal()
    for node in COHORT:
        refused(by_hand, node, by_hand.weighted(survivors), what)


@pytest.mark.req("H-09")
def test_every_part_of_the_cohort_of_a_quorum_is_co_signed_by_its_members() -> None:
    for size in range(SETUP.quorum, 6):
        for survivors in itertools.combinations(COHORT, size):
            by_hand = ByHand(SETUP).deal()
            by_hand.cosign(by_hand.weighted(survivors))
            assert set(by_hand.signatures) == set(COHORT)


@pytest.mark.req("H-09")
def test_who_gave_no_input_refuses_a_set_that_names_it() -> None:
    by_hand = ByHand(SETUP)
    by_hand.show()
    by_hand.collect(COHORT[:4])
    refused(by_hand, COHORT[4], by_hand.weighted(), "gave no input")
    by_hand.cosign(by_hand.weighted(COHORT[:4]), COHORT[:4])


@pytest.mark.req("H-09")
def test_a_node_outside_the_committee_refuses_a_set_without_it() -> None:
    by_hand = ByHand(OUTSIDER_SETUP).deal()
    outsider = next(node for node in OUTSIDER_SETUP.cohort if node not in by_hand.committee)
    rest = [node for node in OUTSIDER_SETUP.cohort if node != outsider]
    refused(by_hand, outsider, by_hand.weighted(rest), "leaves me out")
    member = by_hand.committee[0]
    rest = [node for node in OUTSIDER_SETUP.cohort if node != member]
    by_hand.cosign(by_hand.weighted(rest), [member])


@pytest.mark.req("H-11")
@pytest.mark.parametrize(
    "weights",
    [
        (1, 0, 0, 0, 0, 0),
        (1, 1, 1, 0, 0, 0),
        (4, 1, 1, 1, 1, 0),
        (4, 4, 4, 4, 4, 0),
        (5, 5, 5, 5, 5, 5),
        (4, 4, 4, 4, 4, 5),
        (4, 1, 1, 1, 1, 255),
        (1, 1, 1, 1, 1),
        (1, 1, 1, 1, 1, 1, 1),
        (),
    ],
)
def test_weights_out_of_range_or_number_are_refused(weights: tuple[int, ...]) -> None:
    by_hand = ByHand(WEIGHING).deal()
    for node in WEIGHING.cohort:
        refused(by_hand, node, by_hand.weighted(weights=weights), "weight")


@pytest.mark.req("H-11")
def test_weights_that_let_few_nodes_outweigh_all_others_are_refused() -> None:
    """Of four: (4, 1, 1, 1) has the effective size 2.6, (3, 1, 1, 1) has 3."""
    setup = ckks_setup(4, max_weight=4, weighs=True, dropout=0.25, collusion=0.25)
    for weights, even in (((4, 1, 1, 1), False), ((3, 1, 1, 1), True), ((4, 4, 1, 1), False)):
        by_hand = ByHand(setup).deal()
        view = by_hand.weighted(weights=weights)
        if even:
            by_hand.cosign(view)
        else:
            for node in setup.cohort:
                refused(by_hand, node, view, "outweigh")
    trio = ckks_setup(3, max_weight=4, weighs=True)
    by_hand = ByHand(trio).deal()
    for node in trio.cohort:
        refused(by_hand, node, by_hand.weighted(weights=(4, 1, 1)), "outweigh")


@pytest.mark.req("H-11")
def test_in_private_mode_all_weights_are_one() -> None:
    setup = ckks_setup(5, max_weight=4)
    for weights in ((2, 2, 2, 2, 2), (2, 1, 1, 1, 1), (1, 1, 1, 1, 2)):
        by_hand = ByHand(setup).deal()
        for node in setup.cohort:
            refused(by_hand, node, by_hand.weighted(weights=weights), "weight")
    ByHand(setup).deal().cosign()


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.req("H-12")
def test_the_view_is_announced_with_the_co_signature_and_not_before() -> None:
    by_hand = ByHand(SETUP).deal()
    view = by_hand.weighted(COHORT[:4])
    step = by_hand.tell(ME, view)
    digest = view_digest(keys_digest(SETUP, by_hand.shown), view.survivors, view.weights)
    assert step.events == (ViewFixed(digest, view.survivors),)
    assert len(step.send) == 1


@pytest.mark.req("H-12")
@pytest.mark.req("H-17")
def test_a_node_co_signs_once() -> None:
    for second in (None, COHORT[1:], COHORT):
        by_hand = ByHand(SETUP).deal().cosign()
        refused(by_hand, ME, by_hand.weighted(second), "while signed")


@pytest.mark.req("H-12")
@pytest.mark.req("H-17")
def test_a_node_answers_once() -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    by_hand.answer(ME)
    assert by_hand.client(ME).phase is Phase.OVER
    for message in (by_hand.request(), by_hand.dealt(ME), by_hand.weighted(), by_hand.turn):
        refused(by_hand, ME, message, "while over")


@pytest.mark.req("H-12")
@pytest.mark.parametrize("weights", [(1, 2, 3, 4, 3, 2), (4, 4, 4, 4, 4), (1, 1, 2, 2, 3)])
def test_the_answer_is_a_share_of_the_co_signed_sum(weights: tuple[int, ...]) -> None:
    by_hand = ByHand(WEIGHING).deal()
    names = WEIGHING.cohort[: len(weights)]
    by_hand.cosign(by_hand.weighted(names, weights))
    weighted = dict(zip(names, weights, strict=True))
    collecting = by_hand.opening(weighted)
    for member in by_hand.committee:
        answer = by_hand.answer(member, by_hand.dealt(member, names))
        assert collecting.take(member, answer) == ""
    opened = collecting.open(by_hand.total(weighted))
    assert opened.total is not None
    assert np.array_equal(opened.total, by_hand.fleet.plain_sum(names, weights))


@pytest.mark.req("H-12")
@pytest.mark.parametrize("at", [0, 1, 2])
def test_shares_missing_in_excess_or_out_of_order_are_refused(at: int) -> None:
    names = [node for node in COHORT if node != ME]
    by_hand = ByHand(SETUP).deal().cosign()
    if at == 0:
        refused(by_hand, ME, by_hand.dealt(ME, names[1:], start=1), "due")
    elif at == 1:
        by_hand.tell(ME, by_hand.dealt(ME, names[:2]))
        refused(by_hand, ME, by_hand.request(), "before all shares")
    else:
        by_hand.tell(ME, by_hand.dealt(ME, names))
        refused(by_hand, ME, by_hand.dealt(ME, names[:1]), "due")


@pytest.mark.req("H-17")
def test_a_node_outside_the_committee_opens_nothing() -> None:
    by_hand = ByHand(OUTSIDER_SETUP).deal()
    outsider = next(node for node in OUTSIDER_SETUP.cohort if node not in by_hand.committee)
    step = by_hand.tell(outsider, by_hand.weighted())
    assert step.done
    assert by_hand.client(outsider).phase is Phase.OVER
    for message in (by_hand.dealt(outsider), by_hand.request({})):
        refused(by_hand, outsider, message, "while over")


@pytest.mark.req("H-10")
@pytest.mark.parametrize("count", range(5))
def test_fewer_co_signatures_than_c_open_nothing(count: int) -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    signatures = dict(sorted(by_hand.signatures.items())[:count])
    by_hand.tell(ME, by_hand.dealt(ME))
    if count < SETUP.cosigners:
        refused(by_hand, ME, by_hand.request(signatures), "needed")
    else:
        assert by_hand.tell(ME, by_hand.request(signatures)).done


Forgery = Callable[[ByHand], list[tuple[NodeId, bytes]]]


def good(by_hand: ByHand) -> list[tuple[NodeId, bytes]]:
    return sorted(by_hand.signatures.items())[: SETUP.cosigners]


def of_another(change: Callable[[ByHand], ByHand]) -> Forgery:
    """Return a forgery: one signature is of a round that `change` makes of this one."""

    def forge(by_hand: ByHand) -> list[tuple[NodeId, bytes]]:
        other = change(by_hand)
        (node, _), *rest = good(by_hand)
        return [(node, other.signatures[node]), *rest]

    return forge


def with_keys(by_hand: ByHand, *members: NodeId) -> ByHand:
    other = ByHand(SETUP)
    other.show(members, members)
    other.collect(members)
    return other.cosign(by_hand.weighted(), members)


FORGERIES: dict[str, Forgery] = {
    "the same twice": lambda b: [*good(b)[:3], good(b)[2]],
    "one node's for another": lambda b: [*good(b)[:3], (COHORT[4], good(b)[0][1])],
    "unsorted": lambda b: good(b)[::-1],
    "a stranger's": lambda b: [*good(b)[:3], ("stranger", good(b)[3][1])],
    "a bit": lambda b: [(good(b)[0][0], good(b)[0][1][:-1] + b"\0"), *good(b)[1:]],
    "one bad in excess": lambda b: [*good(b), (COHORT[4], bytes(64))],
    "another survivor set": of_another(
        lambda b: ByHand(SETUP).deal().cosign(b.weighted(COHORT[:4]))
    ),
    "other keys shown": of_another(lambda b: with_keys(b, *COHORT[:4])),
    "another round": of_another(lambda b: ByHand(replace(SETUP, round_id=8)).deal().cosign()),
    "another run": of_another(lambda b: ByHand(replace(SETUP, run_id=b"s" * 16)).deal().cosign()),
    "another offer": of_another(
        lambda b: ByHand(replace(SETUP, offer_hash=bytes(32))).deal().cosign()
    ),
}


@pytest.mark.req("H-10")
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_or_foreign_co_signature_opens_nothing(name: str) -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    by_hand.tell(ME, by_hand.dealt(ME))
    request = OpenRequest(SETUP.round_id, tuple(FORGERIES[name](by_hand)))
    refused(by_hand, ME, request, "co-sign")


@pytest.mark.req("H-10")
@pytest.mark.parametrize("name", ["the same twice", "unsorted", "a stranger's"])
def test_co_signers_are_distinct_nodes_of_the_cohort(name: str) -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    by_hand.tell(ME, by_hand.dealt(ME))
    request = OpenRequest(SETUP.round_id, tuple(FORGERIES[name](by_hand)))
    refused(by_hand, ME, request, "distinct nodes of the round")


# --- phases ---------------------------------------------------------------------------------------


def honest_messages(by_hand: ByHand, node: NodeId) -> Iterator[Message]:
    """Yield what a node is sent in a round, as the others go along with it."""
    others = [other for other in by_hand.setup.cohort if other != node]
    yield CommitteeKeys(by_hand.setup.round_id, by_hand.shown)
    by_hand.show(others)
    yield by_hand.turn
    by_hand.collect(others)
    yield by_hand.weighted()
    by_hand.cosign(nodes=others)
    yield by_hand.dealt(node)
    yield by_hand.request()


def all_messages() -> dict[str, Message]:
    by_hand = ByHand(SETUP)
    told: dict[str, Message] = {}
    for message in honest_messages(by_hand, ME):
        told[type(message).__name__] = message
        by_hand.tell(ME, message)
    return told


TOLD = all_messages()
ORDER = list(TOLD)


@pytest.mark.req("H-17")
@pytest.mark.parametrize("done", range(6))
@pytest.mark.parametrize("kind", [*ORDER, "Survivors"])
def test_a_message_out_of_phase_ends_the_round_for_the_node(done: int, kind: str) -> None:
    if done < 5 and (ORDER[done] == kind or (done, kind) == (1, "WeightedSurvivors")):
        return
    by_hand = ByHand(SETUP)
    for message in itertools.islice(honest_messages(by_hand, ME), done):
        by_hand.tell(ME, message)
    message = Survivors(7, (), ()) if kind == "Survivors" else TOLD[kind]
    if done >= 4 and kind == "DealtShares":
        message = DealtShares(7, 4, ())
    refused(by_hand, ME, message)


@pytest.mark.req("H-17")
@pytest.mark.parametrize("done", range(5))
def test_a_message_of_another_round_ends_the_round_for_the_node(done: int) -> None:
    by_hand = ByHand(SETUP)
    sent = honest_messages(by_hand, ME)
    for _ in range(done):
        by_hand.tell(ME, next(sent))
    refused(by_hand, ME, changed(next(sent), round_id=SETUP.round_id + 1), "of round 8")


def test_before_its_start_a_client_takes_nothing() -> None:
    with pytest.raises(RemoteProtocolError):
        new_client().receive(UploadTurn(7), 0.0)


@pytest.mark.req("H-15")
@pytest.mark.parametrize("done", range(5))
def test_a_silent_coordinator_ends_the_round(done: int) -> None:
    by_hand = ByHand(SETUP)
    sent = honest_messages(by_hand, ME)
    deadline: float | None = None
    for _ in range(done):
        deadline = by_hand.tell(ME, next(sent)).deadline
    if done:
        assert deadline is not None
    client = by_hand.client(ME)
    step = client.on_timeout(deadline or 0.0)
    assert step.done
    (event,) = step.events
    assert isinstance(event, InputRejected)
    assert (client._keys, client._own, client._member) == (None, None, None)
    assert client.on_timeout(0.0).events == ()


@pytest.mark.req("H-15")
def test_a_node_waits_longer_than_the_coordinator_may_take() -> None:
    """All others' training, its phases, and the turns of all that upload before and after."""
    setup = ckks_setup(20, committee={"size": 4, "threshold": 1, "pack": 1})
    by_hand = ByHand(setup)
    node = by_hand.committee[0]
    fresh = new_client(setup, node=node)
    assert fresh.start(0.0).deadline == setup.input_timeout + 3 * setup.phase_timeout
    shown_keys = CommitteeKeys(setup.round_id, by_hand.shown)
    turns = 3  # of 8 nodes
    longest = (3 + turns) * setup.phase_timeout
    by_hand.show([other for other in setup.cohort if other != node])
    others = [other for other in setup.cohort if other != node]
    assert by_hand.tell(node, shown_keys).deadline == longest
    assert by_hand.tell(node, by_hand.turn).deadline == longest
    by_hand.collect(others)
    assert by_hand.tell(node, by_hand.weighted()).deadline == longest
    assert by_hand.tell(node, by_hand.dealt(node)).deadline == longest


def test_the_share_of_an_own_secret_is_in_the_answer() -> None:
    """Left out, the sum of shares would be one of another secret."""
    by_hand = ByHand(SETUP).deal()
    own = by_hand.client(ME)._own
    assert own is not None
    kept = own.astype(np.int64)
    prime = terms_in(SETUP).committee.modulus
    by_hand.cosign(by_hand.weighted(COHORT[:4]))
    answers = {m: by_hand.answer(m, by_hand.dealt(m, COHORT[:4])) for m in COHORT}
    collecting = by_hand.opening(dict.fromkeys(COHORT[:4], 1))
    mine = share_of(SETUP, answers[ME]).astype(np.int64)
    assert ((mine - kept) % prime).any()
    for member, answer in answers.items():
        assert collecting.take(member, answer) == ""
    opened = collecting.open(by_hand.total(dict.fromkeys(COHORT[:4], 1)))
    assert opened.blamed == ()
    assert opened.total is not None
    assert np.array_equal(opened.total, by_hand.fleet.plain_sum(COHORT[:4]))
