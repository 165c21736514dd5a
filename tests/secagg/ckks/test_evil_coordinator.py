"""A malicious coordinator with as many nodes as may collude: it opens one sum, or none.

The clients are real. The coordinator is played here; it has the identity keys of its nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest

from secagg.ckks.sealing import make_key, seal_box
from secagg.ckks.views import keys_digest, sign_view, view_digest
from secagg.errors import RemoteProtocolError
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed
from secagg.types import NodeId
from secagg.wire.messages import SumShare, WeightedSurvivors
from tests.support.ckks import ByHand, Nodes, ckks_setup, share_of, terms_in
from tests.support.fleet import TestSigner


def halves(nodes: Nodes) -> Iterable[tuple[Nodes, Nodes]]:
    """Yield each way to part nodes in two."""
    for size in range(len(nodes) + 1):
        for one in itertools.combinations(nodes, size):
            yield one, tuple(node for node in nodes if node not in one)


def signed_by(by_hand: ByHand, nodes: Nodes, view: WeightedSurvivors) -> dict[NodeId, bytes]:
    """Return co-signatures of nodes that sign whatever is wanted."""
    digest = view_digest(keys_digest(by_hand.setup, by_hand.shown), view.survivors, view.weights)
    return {node: sign_view(by_hand.setup, TestSigner(node), digest) for node in nodes}


def opened_under(
    by_hand: ByHand, nodes: Nodes, view: WeightedSurvivors, signatures: Mapping[NodeId, bytes]
) -> list[NodeId]:
    """Return the members among `nodes`, who were shown a view, that answer."""
    chosen = dict(sorted(signatures.items()))
    found = []
    for node in nodes:
        try:
            answer = by_hand.answer(
                node, by_hand.dealt(node, view.survivors), by_hand.request(chosen)
            )
        except RemoteProtocolError:
            continue
        assert answer.share
        found.append(node)
    return found


def two_views_open(setup: RoundSetup, views: list[WeightedSurvivors], parts: list[Nodes]) -> int:
    """Show each part of the honest nodes another view; return how many views were answered."""
    evil = setup.cohort[len(setup.cohort) - setup.colluders :]
    by_hand = ByHand(setup).deal()
    for nodes, view in zip(parts, views, strict=True):
        by_hand.cosign(view, nodes)
    answered = 0
    for nodes, view in zip(parts, views, strict=True):
        honest = {node: by_hand.signatures[node] for node in nodes}
        evil_ones = signed_by(by_hand, evil, view)
        answered += bool(opened_under(by_hand, nodes, view, {**honest, **evil_ones}))
    return answered


@pytest.mark.req("H-10")
@pytest.mark.req("H-12")
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_of_two_survivor_sets_one_opens_at_most(n: int) -> None:
    setup = ckks_setup(n, dropout=1 / n, collusion=1 / n if n > 4 else 0)
    honest = setup.cohort[: n - setup.colluders]
    by_hand = ByHand(setup)
    less = setup.cohort[1:] if n > 3 else setup.cohort
    weights = [1] * len(less)
    views = [by_hand.weighted(), by_hand.weighted(less, weights)]
    if n == 3:
        setup = ckks_setup(3, max_weight=4, weighs=True)
        views[1] = by_hand.weighted(weights=(2, 2, 2))
    opened = {two_views_open(setup, views, [one, two]) for one, two in halves(honest)}
    assert opened <= {0, 1}
    assert 1 in opened  # with one view for all, or nearly, it does open


@pytest.mark.req("H-10")
@pytest.mark.req("H-11")
def test_of_two_weightings_one_opens_at_most() -> None:
    """Their difference would be the input of one node."""
    setup = ckks_setup(6, max_weight=4, weighs=True, collusion=1 / 6)
    by_hand = ByHand(setup)
    views = [by_hand.weighted(weights=w) for w in ((2, 1, 1, 1, 1, 1), (1,) * 6)]
    honest = setup.cohort[:5]
    some = itertools.islice(halves(honest), 0, None, 3)
    opened = {two_views_open(setup, views, [one, two]) for one, two in some}
    assert opened == {1}  # of five honest nodes three see the same, and one of its own signs


@pytest.mark.req("H-10")
def test_of_two_lists_of_keys_one_opens_at_most() -> None:
    """A secret that was dealt to one committee must not be opened with the shares of another."""
    setup = ckks_setup(5)
    everybody, fewer = setup.cohort, setup.cohort[:4]
    for one, two in halves(setup.cohort[:4]):
        by_hand = ByHand(setup)
        by_hand.show(one, everybody)
        shown = by_hand.shown
        by_hand.show(two, fewer)
        by_hand.collect(two)
        by_hand.shown = shown
        by_hand.collect(one)
        evil = setup.cohort[4:]
        by_hand.show(evil, everybody)
        by_hand.collect(evil)
        view = by_hand.weighted()
        by_hand.cosign(view, [*one, *two])
        answers = 0
        for nodes, members in ((one, everybody), (two, fewer)):
            by_hand.shown = tuple(by_hand.keys[member] for member in members)
            own = {node: by_hand.signatures[node] for node in nodes}
            evil_ones = signed_by(by_hand, evil, view)
            answers += bool(opened_under(by_hand, nodes, view, {**own, **evil_ones}))
        assert answers <= 1


@pytest.mark.req("H-09")
@pytest.mark.req("H-11")
@pytest.mark.parametrize(
    "view",
    [
        lambda names: (names[:1], (1,)),
        lambda names: (names[:2], (1, 1)),
        lambda names: (names, (1, 0, 0, 0, 0, 0)),
        lambda names: (names, (4, 1, 1, 0, 0, 0)),
        lambda names: (names[:3], (4, 1, 1)),
    ],
)
def test_nobody_co_signs_a_view_that_shows_one_input(
    view: Callable[[Nodes], tuple[Nodes, tuple[int, ...]]],
) -> None:
    setup = ckks_setup(6, max_weight=4, weighs=True)
    by_hand = ByHand(setup).deal()
    survivors, weights = view(setup.cohort)
    for node in setup.cohort:
        with pytest.raises(RemoteProtocolError):
            by_hand.tell(node, by_hand.weighted(survivors, weights))
    assert not by_hand.signatures


# --- boxes ----------------------------------------------------------------------------------------

SETUP = ckks_setup(5)
COHORT = SETUP.cohort
VICTIM, MEMBER = COHORT[0], COHORT[1]


def named(by_hand: ByHand, member: NodeId, answer: SumShare) -> tuple[NodeId, ...]:
    assert bool(answer.share) is not bool(answer.unopened)
    assert by_hand.client(member)._member is None
    return answer.unopened


@pytest.mark.req("H-05")
@pytest.mark.req("H-12")
def test_known_shares_in_the_place_of_all_others_do_not_open_one_input() -> None:
    """If they did, the member's answer would be the victim's share plus what is known."""
    by_hand = ByHand(SETUP).deal().cosign()
    terms, evil = terms_in(SETUP), HybridKeys(b"e" * 32)
    known = packed.encode(np.zeros(terms.share_length, np.uint32), terms.committee.modulus)
    for member in COHORT[1:]:
        others = [node for node in COHORT if node not in (VICTIM, member)]
        boxes = {node: seal_box(SETUP, evil, node, by_hand.keys[member], known) for node in others}
        answer = by_hand.answer(member, by_hand.dealt(member, boxes=boxes))
        assert named(by_hand, member, answer) == tuple(others)


@pytest.mark.req("H-04")
@pytest.mark.req("H-05")
def test_a_box_under_a_key_of_the_coordinators_own_ends_the_round_for_the_member() -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    evil = HybridKeys(b"e" * 32)
    for member, dealer in itertools.pairwise(COHORT):
        box = seal_box(SETUP, evil, dealer, by_hand.keys[member], bytes(4096))
        key = make_key(SETUP, TestSigner("coordinator"), evil)
        dealt = by_hand.dealt(member, boxes={dealer: box}, keys={dealer: key})
        with pytest.raises(RemoteProtocolError, match="forged key") as caught:
            by_hand.tell(member, dealt)
        assert caught.value.peer == "coordinator"


@pytest.mark.req("H-05")
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_box_replaced_is_a_dealer_named(count: int) -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    dealers = [node for node in COHORT if node != MEMBER][:count]
    evil = HybridKeys(b"e" * 32)
    boxes = {d: seal_box(SETUP, evil, d, by_hand.keys[MEMBER], bytes(4096)) for d in dealers}
    by_hand.tell(MEMBER, by_hand.dealt(MEMBER, boxes=boxes))
    step = by_hand.tell(MEMBER, by_hand.request())
    (out,) = step.send
    assert isinstance(out.message, SumShare)
    assert named(by_hand, MEMBER, out.message) == tuple(dealers)
    assert [event.peer for event in step.events if isinstance(event, PeerBlamed)] == dealers


@pytest.mark.req("H-05")
def test_boxes_moved_between_members_dealers_and_rounds_do_not_open() -> None:
    other = ByHand(ckks_setup(5, round_id=8)).deal()
    again = ByHand(SETUP).deal()  # the same round a second time, from the same randomness
    by_hand = ByHand(SETUP).deal().cosign()
    assert again.keys[MEMBER].agreement_key == by_hand.keys[MEMBER].agreement_key
    moved = {
        COHORT[0]: by_hand.boxes[COHORT[0]][COHORT[2]],  # sealed for another member
        COHORT[2]: by_hand.boxes[COHORT[3]][MEMBER],  # by another dealer
        COHORT[3]: other.boxes[COHORT[3]][MEMBER],  # in another round
        COHORT[4]: by_hand.boxes[MEMBER][COHORT[4]],  # by the member for the dealer
    }
    answer = by_hand.answer(MEMBER, by_hand.dealt(MEMBER, boxes=moved))
    assert named(by_hand, MEMBER, answer) == tuple(moved)


@pytest.mark.req("H-04")
@pytest.mark.req("H-05")
def test_keys_of_two_dealers_swapped_are_refused() -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    swapped = {COHORT[2]: by_hand.keys[COHORT[3]], COHORT[3]: by_hand.keys[COHORT[2]]}
    with pytest.raises(RemoteProtocolError, match="forged key"):
        by_hand.tell(MEMBER, by_hand.dealt(MEMBER, keys=swapped))


@pytest.mark.req("H-12")
def test_a_member_never_answers_for_other_survivors_than_were_co_signed() -> None:
    """Fewer, more or others are dealt to it: it takes just as many as the co-signed set has."""
    survivors = COHORT[:4]
    by_hand = ByHand(SETUP).deal().cosign(ByHand(SETUP).weighted(survivors))
    with pytest.raises(RemoteProtocolError):
        by_hand.tell(COHORT[0], by_hand.dealt(COHORT[0], COHORT))
    others = (*COHORT[:3], COHORT[4])
    with pytest.raises(RemoteProtocolError, match="forged"):  # in the place of another dealer
        by_hand.tell(COHORT[2], by_hand.dealt(COHORT[2], others))
    moved = {COHORT[3]: by_hand.boxes[COHORT[4]][MEMBER]}
    answer = by_hand.answer(MEMBER, by_hand.dealt(MEMBER, survivors, boxes=moved))
    assert answer.unopened == (COHORT[3],)
    member = COHORT[4]
    answer = by_hand.answer(member, by_hand.dealt(member, survivors))
    assert answer.share


@pytest.mark.req("H-12")
@pytest.mark.req("H-17")
def test_a_second_request_gets_no_second_answer() -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    first = by_hand.answer(MEMBER)
    for message in (by_hand.request(), by_hand.dealt(MEMBER), by_hand.weighted(COHORT[:4])):
        with pytest.raises(RemoteProtocolError):
            by_hand.tell(MEMBER, message)
    assert share_of(SETUP, first).size == 2048


@pytest.mark.req("H-12")
def test_shares_that_a_member_gives_are_of_the_sum_and_none_of_the_dealt_ones() -> None:
    by_hand = ByHand(SETUP).deal().cosign()
    answers = {member: by_hand.answer(member) for member in COHORT}
    prime = terms_in(SETUP).committee.modulus
    collecting = by_hand.opening()
    for member, answer in answers.items():
        assert collecting.take(member, answer) == ""
    secret = packed.open_shares(
        {i: share_of(SETUP, answer) for i, answer in enumerate(answers.values())},
        prime=prime,
        threshold=1,
        pack=1,
        size=2048,
        bound=5 * 4,
    )
    assert secret is not None
    # The sum of five secrets, of four ternary keys each: within 20, of variance 5 · 4 · 2/3.
    assert np.abs(secret.secret).max() <= 20
    assert 11 < secret.secret.var() < 16


@pytest.mark.req("H-06")
def test_ciphertexts_of_nodes_with_one_input_tell_nothing_together() -> None:
    """Differences of ciphertexts of equal inputs are uniform: nobody shares a secret or error."""
    setup = ckks_setup(3)
    zeros = {node: np.zeros(setup.dim, np.uint32) for node in setup.cohort}
    by_hand = ByHand(setup, inputs=zeros).deal()
    totals = [by_hand.total({node: 1})[0].astype(object) for node in setup.cohort]
    modulus = by_hand.opening()._ring.modulus
    for one, two in itertools.combinations(totals, 2):
        share = np.array([int(x) for x in (one - two) % modulus], dtype=float) / modulus
        counts = np.histogram(share, bins=16, range=(0, 1))[0]
        # 2048 in 16 bins: 128 each, chi-square of 15 degrees is below 60 but for 1 in 10^6
        assert ((counts - 128) ** 2 / 128).sum() < 60
