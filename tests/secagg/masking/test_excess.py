"""A coordinator that wants more seeds of noise than are its due: it gets those of one view, once.

The clients are real. The coordinator is played here, with as many nodes as may collude.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from secagg.dp.levels import level_for
from secagg.errors import RemoteProtocolError
from secagg.masking import views
from secagg.masking.client import MaskingClient, Phase
from secagg.steps import Step
from secagg.types import NodeId
from secagg.wire.codec import decode, encode
from secagg.wire.messages import (
    ExcessRequest,
    ExcessSeeds,
    Message,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
)
from tests.secagg.masking.test_split_views import MASKING, EvilCoordinator, Ids
from tests.support.fleet import COORDINATOR, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.noise import NoisyFleet, with_levels
from tests.support.randomness import InsecureLabelledRng
from tests.support.scripts import Recording

SETUP = with_levels(make_setup(10, dim=16))  # quorum and co-signatures 7, three collude
COHORT, HONEST, EVIL = SETUP.cohort, SETUP.cohort[:7], SETUP.cohort[7:]
ROUND = Recording(MASKING, SETUP)
ME = COHORT[1]
ALL_BUT_ONE = COHORT[1:]


class Greedy(EvilCoordinator):
    """Has played honestly up to the uploads, and wants seeds."""

    def __init__(self, kind: type[MaskingClient] = MaskingClient) -> None:
        super().__init__(SETUP, len(EVIL))
        for node in COHORT:
            self.client(node).__class__ = kind
            self.show_sharers(node, COHORT)

    def tell(self, node: NodeId, message: Message) -> Step:
        return self.client(node).receive(decode(encode(message), sender=COORDINATOR), 0.0)

    def cosigned(self, survivors: Ids, nodes: Iterable[NodeId]) -> dict[NodeId, bytes]:
        """Show `nodes` a survivor set; return their signatures and those of the colluding nodes."""
        view = views.view_digest(self.digest_told(ME), survivors)
        given = {
            node: views.sign_survivors(SETUP, TestSigner(node), view)
            for node in EVIL
            if node in survivors
        }
        for node in nodes:
            (out,) = self.tell(node, self.survivors(node, survivors)).send
            assert isinstance(out.message, SurvivorSignature)
            given[node] = out.message.signature
        return given

    def unmasked(self, node: NodeId, signatures: Mapping[NodeId, bytes]) -> bool:
        """Tell whether a node unmasks for these co-signatures."""
        request = UnmaskRequest(SETUP.round_id, tuple(sorted(signatures.items())))
        try:
            (out,) = self.tell(node, request).send
        except RemoteProtocolError:
            return False
        return isinstance(out.message, UnmaskAnswer)

    def seeds(
        self, node: NodeId, contributors: int, signatures: Mapping[NodeId, bytes]
    ) -> tuple[bytes, ...]:
        """Return what a node gives back; afterwards it has nothing left."""
        given: tuple[bytes, ...] = ()
        with contextlib.suppress(RemoteProtocolError):
            step = self.tell(node, request(signatures, contributors=contributors))
            (out,) = step.send
            assert step.done
            assert isinstance(out.message, ExcessSeeds)
            given = out.message.seeds
        assert self.client(node).phase is Phase.OVER
        assert not self.client(node)._excess
        return given


def request(signatures: Mapping[NodeId, bytes], *, contributors: int = 10) -> ExcessRequest:
    return ExcessRequest(SETUP.round_id, contributors, tuple(sorted(signatures.items())))


def answered(survivors: Ids = COHORT) -> tuple[Greedy, dict[NodeId, bytes]]:
    """Return a round that all honest survivors have unmasked, and its co-signatures."""
    greedy = Greedy()
    nodes = [node for node in HONEST if node in survivors]
    signatures = greedy.cosigned(survivors, nodes)
    assert all(greedy.unmasked(node, signatures) for node in nodes)
    return greedy, signatures


@pytest.mark.req("X-05")
@pytest.mark.parametrize("dropouts", range(4))
def test_after_its_answer_a_node_keeps_only_what_it_may_be_asked_for(dropouts: int) -> None:
    survivors = COHORT[:1] + COHORT[1 + dropouts :]
    greedy, signatures = answered(survivors)
    node = survivors[0]
    client, due = greedy.client(node), greedy.fleet.excess[node][dropouts:]
    assert client._excess == due
    assert client.phase is (Phase.ANSWERED if due else Phase.OVER)
    assert greedy.seeds(node, len(survivors), signatures) == due
    assert client.phase is Phase.OVER
    assert not client._excess


@pytest.mark.req("X-06")
def test_before_it_has_unmasked_a_node_gives_no_seeds() -> None:
    """In each phase of a round, with the co-signatures that would serve after the last."""
    received = ROUND.to_client[ME]
    assert isinstance(received[-1], ExcessRequest)
    for stage in range(len(received) - 1):
        client = ROUND.client(ME, stage)
        assert isinstance(client, MaskingClient)
        with pytest.raises(RemoteProtocolError, match="ExcessRequest while"):
            client.receive(received[-1], 0.0)
        assert client.phase is Phase.OVER
        assert not client._excess


@pytest.mark.req("X-07")
def test_it_gives_them_once() -> None:
    client = ROUND.client(ME, len(ROUND.to_client[ME]))
    for again in ROUND.to_client[ME]:
        with pytest.raises(RemoteProtocolError, match="while over"):
            client.receive(again, 0.0)
    greedy, signatures = answered()
    assert greedy.seeds(ME, 10, signatures)
    assert not greedy.seeds(ME, 10, signatures)
    assert not greedy.seeds(ME, 9, signatures)


@pytest.mark.req("X-05")
@pytest.mark.parametrize("claimed", [1, 6, 7, 8, 10, 11])
def test_a_lie_about_the_dropouts_gets_nothing(claimed: int) -> None:
    greedy, signatures = answered(ALL_BUT_ONE)
    assert not greedy.seeds(ME, claimed, signatures)
    assert not greedy.seeds(ME, 9, signatures)  # nor does the truth afterwards


@pytest.mark.req("X-06")
@pytest.mark.parametrize("count", range(11))
def test_co_signatures_are_counted_again(count: int) -> None:
    greedy, signatures = answered()
    assert len(signatures) == 10
    given = greedy.seeds(ME, 10, dict(sorted(signatures.items())[:count]))
    assert bool(given) is (count >= SETUP.cosigners)


@pytest.mark.req("X-06")
@pytest.mark.parametrize(
    "kind", ["another set", "another round", "another offer", "twice", "a stranger"]
)
def test_co_signatures_of_another_view_serve_for_nothing(kind: str) -> None:
    """Seven are needed; six are true in each case."""
    greedy, signatures = answered()
    true = sorted(signatures.items())[:6]
    name, signer = HONEST[6], TestSigner(HONEST[6])
    told = greedy.digest_told(ME)
    view = views.view_digest(told, COHORT)
    false = {
        "another set": views.sign_survivors(SETUP, signer, views.view_digest(told, ALL_BUT_ONE)),
        "another round": views.sign_survivors(replace(SETUP, round_id=6), signer, view),
        "another offer": views.sign_survivors(replace(SETUP, offer_hash=bytes(32)), signer, view),
        "twice": true[-1][1],
        "a stranger": views.sign_survivors(SETUP, TestSigner("stranger"), view),
    }[kind]
    name = {"twice": true[-1][0], "a stranger": "stranger"}.get(kind, name)
    with pytest.raises(RemoteProtocolError):
        greedy.tell(ME, ExcessRequest(SETUP.round_id, 10, (*true, (name, false))))
    assert not greedy.client(ME)._excess


@pytest.mark.req("X-06")
def test_a_request_of_another_round_is_refused() -> None:
    greedy, signatures = answered()
    with pytest.raises(RemoteProtocolError, match="of round 6"):
        greedy.tell(ME, changed(request(signatures), round_id=6))
    assert not greedy.client(ME)._excess


@pytest.mark.req("X-07")
def test_a_node_that_was_started_anew_has_nothing_to_give() -> None:
    _, signatures = answered()
    fresh = NoisyFleet(MASKING, SETUP).client(ME)
    assert isinstance(fresh, MaskingClient)
    for started in (False, True):
        if started:
            fresh = NoisyFleet(MASKING, SETUP).client(ME)
            fresh.start(0.0)
        with pytest.raises(RemoteProtocolError):
            fresh.receive(request(signatures), 0.0)
        assert not fresh._excess  # type: ignore[attr-defined]


# --- split views ---------------------------------------------------------------------------------


class Credulous(MaskingClient):
    """Does not look at the co-signatures: what X-06 and M-11 prevent."""

    def _check_view(self, signatures: object) -> None:
        pass


def play_split(
    kind: type[MaskingClient], shown_all: Ids
) -> tuple[set[Ids], dict[NodeId, tuple[bytes, ...]]]:
    """Say to some honest nodes that nobody is missing, to the others that one is.

    Returns:
        The sets that were unmasked by somebody, and the seeds that came.
    """
    greedy = Greedy(kind)
    parts = {COHORT: shown_all, ALL_BUT_ONE: tuple(n for n in HONEST[1:] if n not in shown_all)}
    signatures = {view: greedy.cosigned(view, nodes) for view, nodes in parts.items()}
    unmasked, seeds = set(), {}
    for view, nodes in parts.items():
        for node in nodes:
            if greedy.unmasked(node, signatures[view]):
                unmasked.add(view)
            if given := greedy.seeds(node, len(view), signatures[view]):
                seeds[node] = given
                assert given == greedy.fleet.excess[node][10 - len(view) :]
    return unmasked, seeds


SPLITS = [part for size in range(7) for part in itertools.combinations(HONEST[1:], size)]


@pytest.mark.req("X-06")
@pytest.mark.parametrize("shown_all", SPLITS[::3], ids=lambda part: str(len(part)))
def test_of_two_views_one_gets_seeds_at_most_and_it_is_that_of_the_sum(shown_all: Ids) -> None:
    unmasked, seeds = play_split(MaskingClient, shown_all)
    assert len(unmasked) <= 1
    assert {len(given) for given in seeds.values()} <= {10 - 7 - (10 - len(v)) for v in unmasked}


def test_seeds_come_where_enough_are_shown_the_same() -> None:
    assert len(play_split(MaskingClient, HONEST[1:])[1]) == 6
    assert len(play_split(MaskingClient, ())[1]) == 6


@pytest.mark.req("X-06")
def test_without_the_co_signatures_too_little_noise_would_be_left() -> None:
    """The attack: the sum over nine is opened, and some of them say what is too much for ten."""
    variances = [Fraction(one) for one in NoisyFleet(MASKING, SETUP).components.variances]

    def left(kind: type[MaskingClient], shown_all: Ids) -> Fraction:
        _, seeds = play_split(kind, shown_all)
        return sum(
            (sum(variances[: len(variances) - len(seeds.get(node, ()))]) for node in HONEST[1:]),
            Fraction(0),
        )

    target = Fraction(10**6) * (1 - Fraction(1, 10**12))
    assert left(Credulous, HONEST[1:4]) < target
    for shown_all in ((), HONEST[1:4], HONEST[1:5]):
        assert left(MaskingClient, shown_all) >= target
    assert level_for(1, SETUP.noise_levels) == 1


@pytest.mark.req("X-06")
def test_its_own_signature_and_those_of_colluding_nodes_are_not_enough() -> None:
    greedy = Greedy()
    signatures = greedy.cosigned(COHORT, [ME])
    assert len(signatures) == 4
    assert not greedy.unmasked(ME, signatures)
    assert not greedy.seeds(ME, 10, signatures)


@pytest.mark.req("X-05")
def test_the_levels_are_those_of_the_offer() -> None:
    rng = InsecureLabelledRng(1, "x")
    setup = with_levels(SETUP, (0, 3))
    vector = ROUND.fleet.inputs[ME]
    client = MaskingClient(
        setup, vector, TestSigner(ME), coordinator=COORDINATOR, rng=rng, excess=(bytes(32),)
    )
    client._settle(9)
    assert client.phase is Phase.OVER
    assert client._excess == ()
