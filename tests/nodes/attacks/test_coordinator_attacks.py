"""Each attack of a coordinator gains something elsewhere and nothing here, unless a rule is off."""

from __future__ import annotations

import dataclasses

import pytest

from nodes.attacks import coordinator_attacks, offer_attacks
from nodes.attacks.coordinator_attacks import COORDINATOR_ATTACKS
from nodes.attacks.offer_attacks import OFFER_ATTACKS
from nodes.attacks.report import Attack, Played
from secagg.masking.client import MaskingClient
from secagg.masking.graph import Graph
from secagg.masking.parameters import choose
from secagg.types import RoundSetup

ATTACKS = {attack.name: attack for attack in (*COORDINATOR_ATTACKS, *OFFER_ATTACKS)}
ENDS = {
    "both-shares": "4 co-signatures, 5 needed",
    "split-survivors": "4 co-signatures, 5 needed",
    "second-request": "Survivors while over",
    "late-upload": "one sum over 5 inputs",
    "split-sharers": "7 nodes leave",
    "split-agreed": "7 nodes leave",
    "key-substitution": "relayed a forged advert",
    "kem-key-substitution": "relayed a forged advert",
    "capsule-substitution": "altered or was wrong from the start",
    "replayed-keys": "relayed a forged advert",
    "replayed-signatures": "showed a false co-signature",
    "inconsistent-models": "relayed a forged advert",
    "stale-model": "relayed a forged advert",
    "cut-arc": "leave a gap in the graph",
    "sybil-cohort": "OfferRefused: unknown_member",
    "small-cohort": "OfferRefused: thresholds_unsafe",
    "cohort-of-two": "OfferRefused: cohort_too_small",
    "lowered-threshold": "OfferRefused: thresholds_unsafe",
    "lowered-quorum": "OfferRefused: thresholds_unsafe",
    "understated-collusion": "OfferRefused: thresholds_unsafe",
    "sparse-offer": "OfferRefused: thresholds_unsafe",
    "grinding": "of 8 collude in the worst of 4 graphs",
}


def play(name: str, n: int = 7) -> Played:
    return ATTACKS[name].play(n, 64, 1)


@pytest.mark.req("A-01", "A-02")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda attack: attack.name)
def test_it_gains_nothing_here_and_what_it_gains_elsewhere_is_real(attack: Attack) -> None:
    played = attack.play(7, 64, 1)
    assert played.here == "nothing"
    assert played.failed
    assert ENDS[attack.name] in played.outcome
    unnoticed = attack.name in ("late-upload", "grinding")  # a dropout like any other; chance
    assert played.blamed == (() if unnoticed else ("coordinator",))
    if attack.name == "late-upload":  # double masking stops it there as well
        assert played.elsewhere == "nothing"
    elif attack.name == "cut-arc":
        assert played.elsewhere == "sum of 5 nodes opened apart, max error 0"
    elif attack.name not in ("stale-model", "grinding"):
        assert "recovered, max error 0" in played.elsewhere


@pytest.mark.req("A-02")
@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"grinding"}))
def test_also_with_other_numbers_of_nodes(name: str, n: int) -> None:
    assert play(name, n).failed


@pytest.mark.req("A-03")
def test_without_the_rule_on_co_signatures_both_shares_open_the_victim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RoundSetup, "cosigners", property(lambda self: 2))
    assert play("both-shares").failed, "the threshold alone holds"
    low = dataclasses.replace(choose(7), threshold=4)
    monkeypatch.setattr("nodes.attacks.puppet.choose", lambda n: low)
    played = play("both-shares")
    assert played.revealed
    assert "node-00" in played.here


@pytest.mark.req("A-03")
def test_without_the_rule_on_gaps_an_arc_is_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play("cut-arc").failed
    monkeypatch.setattr(Graph, "is_whole", lambda *args: True)
    played = play("cut-arc")
    assert played.revealed
    assert played.here == "2 partial sums opened, max error 0", "the arc, and the rest"


@pytest.mark.req("A-03")
def test_a_node_that_answers_twice_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MaskingClient._on_unmask_request

    def forgetful(self: MaskingClient, message: object, now: float) -> object:
        held, phase = dict(self._held), self._phase
        step = original(self, message, now)  # type: ignore[arg-type]
        self._held, self._phase = held, phase
        return step

    accepts = {
        (phase, kind): forgetful if handler is original else handler
        for (phase, kind), handler in MaskingClient._ACCEPTS.items()
    }
    again = {
        ("signed", kind): handler
        for (phase, kind), handler in MaskingClient._ACCEPTS.items()
        if phase == "uploaded"
    }
    monkeypatch.setattr(MaskingClient, "_ACCEPTS", accepts | again)
    assert play("second-request").revealed


@pytest.mark.req("A-03")
def test_a_node_without_a_policy_takes_a_sum_with_two_accomplices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nodes.session.offer._check_thresholds", lambda *args: None)
    assert play("small-cohort").revealed
    assert offer_attacks.OFFER_ATTACKS
    assert coordinator_attacks.COORDINATOR_ATTACKS
