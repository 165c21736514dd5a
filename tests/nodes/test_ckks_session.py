"""Runs under ckks, in both weight modes, session against session."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from fl_core.training import LocalUpdate
from nodes.session.events import (
    NodeRefused,
    PeerRejected,
    RoundDone,
    RoundLost,
    RoundStarted,
    RunOver,
    TrainRequested,
)
from nodes.session.offer import build_offer, check_offer
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy, PolicyFacts
from secagg.ckks.client import CkksClient
from secagg.ckks.rlwe import Secret
from secagg.ckks.sealing import seal_box
from secagg.errors import ConfigError, OfferRefused
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RefusalReason
from secagg.wire.messages import CkksTerms, RoundOffer, SealingKey
from tests.support.run import Run, constant_update, make_plan, make_state

COORDINATOR_WEIGHS = NodePolicy(schemes=("ckks",), weights=("private", "coordinator"))
PRIVATE = NodePolicy(schemes=("ckks",))


def played(n: int, weights: str, *, rounds: int = 2, policy: NodePolicy | None = None) -> Run:
    plan = make_plan(scheme="ckks", weights=weights, rounds=rounds)
    given = policy or (COORDINATOR_WEIGHS if weights == "coordinator" else PRIVATE)
    run = Run(n, plan=plan, policies={f"node-{index}": given for index in range(n)})
    run.boot()
    run.play(60.0)
    return run


@pytest.mark.req("H-01")
def test_a_run_under_ckks_gives_the_weighted_mean() -> None:
    run = played(4, "private")
    done = run.of(RoundDone)
    assert [event.rounds_done for event in done] == [1, 2]
    assert all(event.weights == (1,) * 4 for event in done)
    weights = np.array([1 / (index + 1) for index in range(4)])
    moved = 0.01 * np.arange(1, 5)
    mean = float((weights * moved).sum() / weights.sum())
    assert run.coordinator.run.params == pytest.approx(2 * mean, abs=1e-3)


@pytest.mark.req("H-16")
def test_the_coordinator_weighs_by_the_distances_it_is_told() -> None:
    run = played(5, "coordinator", rounds=1)
    (done,) = run.of(RoundDone)
    distances = run.coordinator.run.distances
    assert distances == {f"node-{index}": float(index) for index in range(5)}
    by_node = dict(zip(done.contributors, done.weights, strict=True))
    assert by_node["node-0"] == 3
    assert sorted(by_node.values(), reverse=True) == [by_node[node] for node in sorted(by_node)]
    weights = np.array([by_node[node] for node in sorted(by_node)])
    moved = np.array([0.01 * (int(node[-1]) + 1) for node in sorted(by_node)])
    mean = float((weights * moved).sum() / weights.sum())
    assert run.coordinator.run.params == pytest.approx(mean, abs=1e-3)


@pytest.mark.req("H-11")
def test_an_outlier_is_left_out_and_distances_are_smoothed() -> None:
    plan = make_plan(scheme="ckks", weights="coordinator", rounds=2, collusion=0.1, dropout=0.3)

    def trainer(node: NodeId, request: TrainRequested) -> LocalUpdate:
        update = constant_update(node, request)
        far = 50.0 if node == "node-3" else 1.0 + request.offer.round_id
        return replace(update, distance=far)

    lenient = replace(COORDINATOR_WEIGHS, collusion=0.1)
    policies = {f"node-{index}": lenient for index in range(8)}
    run = Run(8, plan=plan, policies=policies, trainer=trainer)
    run.boot()
    run.play(60.0)
    assert len(run.of(RoundDone)) == 2
    for event in run.of(RoundDone):
        assert "node-3" not in event.contributors
        assert event.weights == (3,) * 7
    assert run.coordinator.run.distances["node-0"] == 0.5 * 2.0 + 0.5 * 3.0


@pytest.mark.req("H-16")
def test_a_node_refuses_to_disclose_its_distance_unless_its_policy_allows_it() -> None:
    plan = make_plan(scheme="ckks", weights="coordinator")
    run = Run(4, plan=plan, policies={f"node-{index}": PRIVATE for index in range(4)})
    run.boot()
    run.play(60.0)
    assert {event.reason for event in run.of(NodeRefused)} == {"weights_forbidden"}


def offer_of(plan: RunPlan, n: int, *, members: int = 0) -> RoundOffer:
    cohort = tuple(f"node-{index}" for index in range(n))
    return build_offer(plan, make_state(), cohort, 1, members=members)


def judged(offer: RoundOffer, policy: NodePolicy = PRIVATE, *, members: int = 0) -> RoundSetup:
    return check_offer(
        offer,
        b"R" * 16,
        node_id="node-0",
        policy=policy,
        signing_key=lambda node: b"k" * 32,
        facts=PolicyFacts(members=members),
    )


def test_an_honest_offer_is_taken_with_its_terms() -> None:
    plan = make_plan(scheme="ckks")
    setup = judged(offer_of(plan, 8))
    assert setup.ckks == plan.terms(8, members=8)
    assert not setup.coordinator_weighs
    assert setup.cosigners == plan.terms(8, members=8).cosigners


@pytest.mark.req("H-02")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modulus_bits": 53}, "not known to keep 128 bits"),
        ({"modulus_bits": 40}, "could wrap"),
        ({"secret_terms": 1}, "secret_terms is 1"),
        ({"error_terms": 0}, None),
        ({"noise_bits": 4}, "could wrap"),
        ({"committee_threshold": 1}, "threshold 1 of 8"),
        ({"committee_modulus": 257}, "could wrap"),
        ({"committee_size": 9}, "a committee of 9"),
        ({"degree": 1024}, "degree 1024"),
        ({"max_weight": 5}, "max_weight is 5"),
    ],
)
def test_a_node_refuses_terms_that_are_not_safe(change: dict[str, int], reason: str | None) -> None:
    offer = offer_of(make_plan(scheme="ckks"), 8)
    assert offer.ckks is not None
    weaker = msgspec.structs.replace(offer.ckks, **change)
    if reason is None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(weaker), type=CkksTerms)
        return
    with pytest.raises(OfferRefused, match=reason) as refused:
        judged(msgspec.structs.replace(offer, ckks=weaker))
    assert refused.value.reason == RefusalReason.THRESHOLDS_UNSAFE


@pytest.mark.req("H-02")
def test_terms_and_scheme_belong_together() -> None:
    offer = offer_of(make_plan(scheme="ckks"), 8)
    with pytest.raises(OfferRefused, match="without its terms"):
        judged(msgspec.structs.replace(offer, ckks=None))
    masked = offer_of(make_plan(), 8)
    mixed = msgspec.structs.replace(masked, ckks=offer.ckks)
    with pytest.raises(OfferRefused, match="terms of ckks in an offer of masking"):
        judged(mixed, NodePolicy())


@pytest.mark.req("H-02")
def test_colluders_are_counted_on_the_roster() -> None:
    plan = make_plan(scheme="ckks", collusion=0.2, dropout=0.2)
    with pytest.raises(OfferRefused, match="of 12 members 3 may be"):
        judged(offer_of(plan, 8, members=12), members=12)
    lenient = NodePolicy(schemes=("ckks",), collusion=0.2)
    assert judged(offer_of(plan, 8, members=12), lenient, members=12).colluders == 2


def test_only_ckks_lets_the_coordinator_weigh() -> None:
    with pytest.raises(ConfigError, match="cannot weigh what it does not see") as refused:
        make_plan(weights="coordinator")
    assert 'scheme = "ckks"' in refused.value.hint
    with pytest.raises(ConfigError, match="weights is 'none'") as refused:
        make_plan(weights="none")
    assert "private, coordinator" in refused.value.hint


def test_a_plan_knows_its_largest_cohort() -> None:
    plan = make_plan(scheme="ckks")
    assert plan.max_cohort == 10_000
    plan.check_cohort(plan.max_cohort)
    heavy = make_plan(scheme="ckks", value_bits=24)
    assert heavy.max_cohort == 256
    heavy.check_cohort(heavy.max_cohort)


@pytest.mark.req("H-16")
@pytest.mark.parametrize(
    ("distance", "told"),
    [(1e300, 8.0), (0.3, 0.25), (-1.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)],
)
def test_whatever_training_finds_a_distance_is_one_that_a_node_might_have(
    distance: float, told: float
) -> None:
    plan = make_plan(scheme="ckks", weights="coordinator", rounds=1)

    def trainer(node: NodeId, request: TrainRequested) -> LocalUpdate:
        update = constant_update(node, request)
        return replace(update, distance=distance) if node == "node-2" else update

    policies = {f"node-{index}": COORDINATOR_WEIGHS for index in range(5)}
    run = Run(5, plan=plan, policies=policies, trainer=trainer)
    run.boot()
    run.play(60.0)
    assert len(run.of(RoundDone)) == 1
    assert run.coordinator.run.distances["node-2"] == told


def test_a_round_is_offered_to_as_many_nodes_as_can_be_served() -> None:
    """With 46 of 140 that may collude, 49 nodes cannot both keep a secret and open a sum."""
    plan = make_plan(scheme="ckks")
    with pytest.raises(ConfigError):
        plan.terms(49, members=140)
    assert plan.cohort_size(49, 140) == 48
    assert plan.cohort_size(140, 140) == 140
    assert plan.least_cohort(140) == 48
    with pytest.raises(ConfigError):
        plan.terms(52, members=150)
    assert plan.cohort_size(52, 150) == 0
    least = plan.least_cohort(150)
    assert plan.cohort_size(least, 150) == least
    assert make_plan().cohort_size(9, 9) == 9


@pytest.mark.req("H-16")
def test_a_reference_that_would_magnify_distances_is_refused() -> None:
    offer = offer_of(make_plan(scheme="ckks"), 8)
    short, long = np.full(4, 1.04, dtype="<f4"), np.full(4, 1.06, dtype="<f4")
    assert judged(msgspec.structs.replace(offer, reference=short.tobytes()))
    with pytest.raises(OfferRefused, match="longer than a mean of standardised embeddings"):
        judged(msgspec.structs.replace(offer, reference=long.tobytes()))


@pytest.mark.req("S-10")
def test_a_dealer_whose_boxes_do_not_open_sits_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accused by more members than may collude it is guilty, and the run goes on without it."""

    def sealed(setup: RoundSetup, keys: HybridKeys, dealer: NodeId, *rest: object) -> bytes:
        box = seal_box(setup, keys, dealer, *rest)  # type: ignore[arg-type]
        return bytes(len(box)) if dealer == "node-2" else box

    monkeypatch.setattr("secagg.ckks.client.seal_box", sealed)
    plan = make_plan(scheme="ckks", rounds=1, collusion=0.2, dropout=0.2)
    lenient = replace(PRIVATE, collusion=0.2)
    run = Run(7, plan=plan, policies={f"node-{index}": lenient for index in range(7)})
    run.boot()
    run.play(300.0)
    lost, (done,) = run.of(RoundLost), run.of(RoundDone)
    assert [event.reason for event in lost] == ["too_few_answers"] * 2
    assert done.contributors == tuple(n for n in run.names if n != "node-2")
    blamed = {event.peer for event in run.of(PeerRejected) if "do not open for" in event.reason}
    assert blamed == {"node-2"}


@pytest.mark.req("S-10")
def test_what_may_be_anothers_fault_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def sealed(setup: RoundSetup, keys: HybridKeys, dealer: NodeId, *rest: object) -> bytes:
        box = seal_box(setup, keys, dealer, *rest)  # type: ignore[arg-type]
        spoiled = dealer == "node-2" and getattr(rest[0], "node_id", "") == "node-0"
        return bytes(len(box)) if spoiled else box

    monkeypatch.setattr("secagg.ckks.client.seal_box", sealed)
    run = played(7, "private", rounds=4)
    assert all(event.contributors == tuple(run.names) for event in run.of(RoundDone))
    assert len(run.of(RoundDone)) == 4
    assert any("says so wrongly" in event.reason for event in run.of(PeerRejected))


@pytest.mark.req("S-17")
def test_a_dealer_of_random_shares_is_found_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No message tells who it was; leaving half of the suspects out does, in some rounds."""

    def boxes(client: CkksClient, secret: Secret, keys: tuple[SealingKey, ...]) -> list[bytes]:
        if client._me != "node-2":
            return dealt(client, secret, keys)
        prime, size = client._terms.committee.modulus, client._terms.share_length
        rng = np.random.default_rng(client._setup.round_id)
        client._own = rng.integers(0, prime, size, dtype=np.uint32)
        others = [key for key in keys if key.node_id != client._me]
        noise = [packed.encode(rng.integers(0, prime, size, np.uint32), prime) for _ in others]
        return [
            seal_box(client._setup, client._own_keys, client._me, key, share)
            for key, share in zip(others, noise, strict=True)
        ]

    dealt = CkksClient._boxes
    monkeypatch.setattr(CkksClient, "_boxes", boxes)
    plan = make_plan(scheme="ckks", rounds=6, collusion=0.1, dropout=0.1)
    lenient = replace(PRIVATE, collusion=0.1)
    run = Run(8, plan=plan, policies={f"node-{index}": lenient for index in range(8)})
    run.boot()
    run.play(600.0)
    done, lost = run.of(RoundDone), run.of(RoundLost)
    assert len(done) == 6
    assert 1 <= len(lost) <= 5
    assert {event.reason for event in lost} == {"bad_shares"}
    assert all("node-2" not in event.contributors for event in done)
    named = [e.peer for e in run.of(PeerRejected) if "it alone was in" in e.reason]
    assert set(named) == {"node-2"}


@pytest.mark.req("S-10", "S-17")
def test_an_outlier_is_asked_in_every_round_and_comes_back() -> None:
    """It did its part: that it got no weight is no reason to let it sit out."""
    plan = make_plan(scheme="ckks", weights="coordinator", rounds=9, collusion=0.1, dropout=0.3)

    def trainer(node: NodeId, request: TrainRequested) -> LocalUpdate:
        far = node == "node-3" and request.offer.round_id == 1
        return replace(constant_update(node, request), distance=50.0 if far else 1.0)

    lenient = replace(COORDINATOR_WEIGHS, collusion=0.1)
    policies = {f"node-{index}": lenient for index in range(8)}
    run = Run(8, plan=plan, policies=policies, trainer=trainer)
    run.boot()
    run.play(120.0)
    started, done = run.of(RoundStarted), run.of(RoundDone)
    assert [event.cohort for event in started] == [tuple(run.names)] * 9
    assert done[0].outliers == ("node-3",)
    assert "node-3" not in done[0].contributors
    assert done[-1].outliers == ()
    assert "node-3" in done[-1].contributors


@pytest.mark.req("S-13", "S-17")
@pytest.mark.parametrize("scheme", ["masking", "ckks"])
def test_a_node_that_cancels_all_weights_does_not_end_the_run(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.session.inputs._check", lambda *_: None)  # an evil node has none
    plan = make_plan(scheme=scheme, rounds=4, collusion=0.1, dropout=0.1)

    def trainer(node: NodeId, request: TrainRequested) -> LocalUpdate:
        others = len(request.offer.cohort) - 1
        weight = -0.1 * others if node == "node-2" else 0.1
        return replace(constant_update(node, request), weight=weight)

    policy = NodePolicy(schemes=(scheme,), collusion=0.1)
    run = Run(8, plan=plan, policies={f"node-{i}": policy for i in range(8)}, trainer=trainer)
    run.boot()
    run.play(600.0)
    assert len(run.of(RoundDone)) == 4
    assert {event.reason for event in run.of(RoundLost)} == {"zero_weight"}
    assert all("node-2" not in event.contributors for event in run.of(RoundDone))


@pytest.mark.req("S-17")
def test_one_spoilt_round_does_not_end_a_run_of_nodes_that_insist_on_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They refuse the half cohort that would follow, so all are asked again."""
    plan = make_plan(scheme="ckks", rounds=3, collusion=0.1, dropout=0.1)
    policy = replace(PRIVATE, collusion=0.1, min_cohort=8)
    run = Run(10, plan=plan, policies={f"node-{index}": policy for index in range(10)})
    read = "nodes.session.coordinator.mean_of"
    with monkeypatch.context() as patch:
        patch.setattr(read, lambda *_: None)  # as if somebody had cancelled all weights
        run.boot()
        while not run.of(RoundLost):
            run.play(1.0)
    run.play(600.0)
    assert len(run.of(RoundDone)) == 3
    assert [event.reason for event in run.of(RoundLost)] == ["zero_weight", "too_few_keys"]


def test_chunks_of_a_refused_round_accuse_nobody_and_the_end_names_who_refused() -> None:
    plan = make_plan(scheme="ckks", weights="coordinator", max_failures=2)
    run = Run(4, plan=plan, policies={f"node-{index}": PRIVATE for index in range(4)})
    run.boot()
    run.play(60.0)
    for node in run.names:
        assert not run.of(PeerRejected, node)
    (over,) = run.of(RunOver)
    assert over.reason.startswith("2 rounds in a row aborted, the last by too_few_keys; ")
    assert "node-3 refused it: weights_forbidden" in over.reason
