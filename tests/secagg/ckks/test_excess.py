"""Seeds of noise under ckks: who is no member of the committee asks for co-signatures as well.

The clients are real. The coordinator is played here, with as many nodes as may collude.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from secagg.ckks.client import CkksClient, Phase
from secagg.ckks.views import keys_digest, sign_view, view_digest
from secagg.errors import RemoteProtocolError
from secagg.round_setup import RoundSetup
from secagg.types import NodeId
from secagg.wire.messages import ExcessRequest, ExcessSeeds, SumShare, WeightedSurvivors
from tests.support.ckks import CKKS, ByHand, Nodes, ckks_setup
from tests.support.fleet import TestSigner
from tests.support.messages import changed
from tests.support.noise import NoisyFleet, with_levels
from tests.support.scripts import deaths

SETUP = with_levels(ckks_setup(10, committee={"size": 6, "threshold": 2}))
COHORT = SETUP.cohort
EVIL = SETUP.colluders
HONEST = COHORT[: len(COHORT) - EVIL]
COMMITTEE = ByHand(SETUP).committee
MEMBERS = [node for node in HONEST if node in COMMITTEE]
OUTSIDERS = [node for node in HONEST if node not in COMMITTEE]
LIED_TO = OUTSIDERS[:2]
either = pytest.mark.parametrize("me", [MEMBERS[0], OUTSIDERS[0]], ids=["member", "outsider"])


def dealt(kind: type[CkksClient] = CkksClient) -> ByHand:
    """Return a round up to the uploads."""
    by_hand = ByHand(SETUP).deal()
    for node in COHORT:
        by_hand.client(node).__class__ = kind
    return by_hand


def signed(by_hand: ByHand, view: WeightedSurvivors, *nodes: NodeId) -> dict[NodeId, bytes]:
    """Return signatures by nodes that sign whatever is wanted."""
    digest = view_digest(keys_digest(SETUP, by_hand.shown), view.survivors, view.weights)
    return {node: sign_view(SETUP, TestSigner(node), digest) for node in nodes}


def cosigned(
    by_hand: ByHand, view: WeightedSurvivors, nodes: Iterable[NodeId]
) -> dict[NodeId, bytes]:
    """Show honest nodes a view; return their signatures and those of the colluding ones."""
    chosen = list(nodes)
    by_hand.cosign(view, chosen)
    mine = {node: by_hand.signatures[node] for node in chosen}
    return mine | signed(by_hand, view, *COHORT[len(HONEST) :])


def opens(
    by_hand: ByHand, node: NodeId, view: WeightedSurvivors, signatures: Mapping[NodeId, bytes]
) -> bool:
    """Tell whether a member opens the sum of a view."""
    opening = by_hand.request(dict(sorted(signatures.items())))
    with contextlib.suppress(RemoteProtocolError):
        answer = by_hand.answer(node, by_hand.dealt(node, view.survivors), opening)
        return isinstance(answer, SumShare)
    return False


def request(signatures: Mapping[NodeId, bytes], contributors: int = 10) -> ExcessRequest:
    return ExcessRequest(SETUP.round_id, contributors, tuple(sorted(signatures.items())))


def seeds(by_hand: ByHand, node: NodeId, message: ExcessRequest) -> tuple[bytes, ...]:
    """Return what a node gives back; afterwards it has nothing left."""
    given: tuple[bytes, ...] = ()
    with contextlib.suppress(RemoteProtocolError):
        step = by_hand.tell(node, message)
        (out,) = step.send
        assert step.done
        assert isinstance(out.message, ExcessSeeds)
        given = out.message.seeds
    assert by_hand.client(node).phase is Phase.OVER
    assert not by_hand.client(node)._excess
    return given


def settled(me: NodeId, survivors: Nodes = COHORT) -> tuple[ByHand, dict[NodeId, bytes]]:
    """Return a round in which `me` owes nothing any more, and its co-signatures."""
    by_hand = dealt()
    view = by_hand.weighted(survivors)
    signatures = cosigned(by_hand, view, [node for node in HONEST if node in survivors])
    if me in COMMITTEE:
        assert opens(by_hand, me, view, signatures)
    return by_hand, signatures


@either
@pytest.mark.req("X-05")
@pytest.mark.parametrize("dropouts", range(4))
def test_it_keeps_only_what_it_may_be_asked_for(me: NodeId, dropouts: int) -> None:
    others = [node for node in HONEST if node != me][:dropouts]
    survivors = [node for node in COHORT if node not in others]
    by_hand, signatures = settled(me, survivors)
    due = by_hand.fleet.excess[me][dropouts:]
    assert by_hand.client(me)._excess == due
    assert by_hand.client(me).phase is (Phase.ANSWERED if due else Phase.OVER)
    assert seeds(by_hand, me, request(signatures, len(survivors))) == due


@pytest.mark.req("X-06")
def test_a_member_opens_before_it_gives() -> None:
    by_hand = dealt()
    signatures = cosigned(by_hand, by_hand.weighted(), HONEST)
    assert not seeds(by_hand, MEMBERS[0], request(signatures))
    assert seeds(by_hand, OUTSIDERS[0], request(signatures))


@either
@pytest.mark.req("X-06")
def test_nobody_gives_before_it_has_co_signed(me: NodeId) -> None:
    by_hand = ByHand(SETUP)
    by_hand.show()
    by_hand.collect([node for node in COHORT if node != me])
    view = by_hand.weighted()
    assert not seeds(by_hand, me, request(signed(by_hand, view, *COHORT)))
    by_hand = dealt()
    assert not seeds(by_hand, me, request(signed(by_hand, view, *COHORT)))


@either
@pytest.mark.req("X-07")
def test_it_gives_once(me: NodeId) -> None:
    by_hand, signatures = settled(me)
    assert len(seeds(by_hand, me, request(signatures))) == 3
    assert not seeds(by_hand, me, request(signatures))
    assert not seeds(by_hand, me, request(signatures, 9))


@either
@pytest.mark.req("X-05")
@pytest.mark.parametrize("claimed", [1, 7, 8, 10, 11])
def test_a_lie_about_the_dropouts_gets_nothing(me: NodeId, claimed: int) -> None:
    other = next(node for node in HONEST if node != me)
    by_hand, signatures = settled(me, [node for node in COHORT if node != other])
    assert not seeds(by_hand, me, request(signatures, claimed))
    assert not seeds(by_hand, me, request(signatures, 9))


@either
@pytest.mark.req("X-06")
@pytest.mark.parametrize("count", [0, 1, 6, 7, 10])
def test_co_signatures_are_counted(me: NodeId, count: int) -> None:
    by_hand, signatures = settled(me)
    assert SETUP.cosigners == 7
    given = seeds(by_hand, me, request(dict(sorted(signatures.items())[:count])))
    assert bool(given) is (count >= 7)


@either
@pytest.mark.req("X-06")
@pytest.mark.parametrize("kind", ["set", "keys", "round", "offer", "stranger"])
def test_co_signatures_of_another_view_serve_for_nothing(me: NodeId, kind: str) -> None:
    """Seven are needed; six are true in each case."""
    by_hand, signatures = settled(me)
    true, seventh = dict(sorted(signatures.items())[:6]), COHORT[6]
    view = by_hand.weighted()
    keys = keys_digest(SETUP, by_hand.shown if kind != "keys" else by_hand.shown[1:])
    names = COHORT[1:] if kind == "set" else view.survivors
    digest = view_digest(keys, names, bytes([1] * len(names)))
    setup: RoundSetup = SETUP
    if kind == "round":
        setup = replace(SETUP, round_id=6)
    elif kind == "offer":
        setup = replace(SETUP, offer_hash=bytes(32))
    name = "stranger" if kind == "stranger" else seventh
    false = {name: sign_view(setup, TestSigner(name), digest)}
    assert not seeds(by_hand, me, request(true | false))


@either
@pytest.mark.req("X-06")
def test_a_request_of_another_round_is_refused(me: NodeId) -> None:
    by_hand, signatures = settled(me)
    assert not seeds(by_hand, me, changed(request(signatures), round_id=6))  # type: ignore[arg-type]


@pytest.mark.req("X-05")
def test_a_member_without_an_input_in_the_sum_keeps_its_seeds_to_itself() -> None:
    me = MEMBERS[0]
    by_hand, rest = dealt(), [node for node in COHORT if node != me]
    view = by_hand.weighted(rest)
    signatures = cosigned(by_hand, view, HONEST)
    assert opens(by_hand, me, view, signatures)
    assert by_hand.client(me).phase is Phase.OVER
    assert not seeds(by_hand, me, request(signatures, 9))


class Credulous(CkksClient):
    """Does not look at the co-signatures when it is asked for seeds: what X-06 prevents."""

    def _check_view(self, signatures: object) -> None:
        if self._member is not None:
            super()._check_view(signatures)  # type: ignore[arg-type]


def seeds_of_split_views(kind: type[CkksClient]) -> tuple[set[int], set[NodeId]]:
    """Say to two outsiders that nobody is missing, to the others that one node is.

    Returns:
        How many contributors there are in the sums that open, and who gave too many seeds.
    """
    by_hand, gone = dealt(kind), MEMBERS[-1]
    nine = by_hand.weighted([node for node in COHORT if node != gone])
    others = [node for node in HONEST if node not in (*LIED_TO, gone)]
    parts = ((LIED_TO, by_hand.weighted()), (others, nine))
    opened: set[int] = set()
    greedy: set[NodeId] = set()
    for nodes, view in parts:
        signatures = cosigned(by_hand, view, nodes)
        for node in nodes:
            if node in COMMITTEE and opens(by_hand, node, view, signatures):
                opened.add(len(view.survivors))
            given = seeds(by_hand, node, request(signatures, len(view.survivors)))
            if len(given) > 2:
                greedy.add(node)
    return opened, greedy


@pytest.mark.req("X-06")
def test_outsiders_that_are_shown_another_view_give_nothing() -> None:
    """Else the members would open the sum over nine, and outsiders give for one over ten."""
    assert seeds_of_split_views(CkksClient) == ({9}, set())
    assert seeds_of_split_views(Credulous) == ({9}, set(LIED_TO))


@pytest.mark.req("X-08")
def test_a_member_that_missed_its_turn_is_not_asked() -> None:
    setup = with_levels(ckks_setup(10))
    fleet = NoisyFleet(CKKS, setup)
    outcome = fleet.play(deaths({COHORT[0]: SumShare}))
    assert outcome.contributors == COHORT
    assert set(outcome.excess) == set(COHORT[1:])
    assert COHORT[0] not in {node for node, m in outcome.seen if isinstance(m, ExcessSeeds)}


@pytest.mark.req("X-04")
def test_outsiders_are_asked_too() -> None:
    fleet = NoisyFleet(CKKS, SETUP)
    outcome = fleet.play()
    assert dict(outcome.excess) == fleet.due(COHORT)
    assert not outcome.errors
