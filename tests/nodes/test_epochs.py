"""Rules of an epoch one by one: what a node goes on with, whom is asked, what may be said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from fl_core.training import LocalUpdate
from nodes.config import CoordinatorConfig, CoordinatorSection, PrivacySection, RunSection
from nodes.session.epoch_terms import as_first, at_position, divisor_of, epoch_fault, epoch_signs
from nodes.session.epochs import Epochs
from nodes.session.guard import Guard
from nodes.session.inputs import mean_of, nothing_to_give, to_give
from nodes.session.ledger import MemoryLedger
from nodes.session.offer import build_offer, check_offer, noised_encoding_of, setup_of
from nodes.session.policy import NodePolicy, PolicyFacts
from nodes.session.privacy import CLIENT, PrivacySettings, cost_of
from secagg import ring
from secagg.dp.events import ZeroConcentrated
from secagg.dp.headroom import noise_tail, share_variance
from secagg.dp.terms import DISCRETE_GAUSSIAN, NoiseTerms
from secagg.errors import ConfigError, LocalProtocolError, OfferRefused
from secagg.steps import SumReady
from secagg.wire.messages import CorrelatedTerms, DpTerms, RoundOffer
from tests.nodes.test_offer import replace_offer
from tests.support.fleet import TestSigner
from tests.support.randomness import InsecureLabelledRng
from tests.support.run import DIM, EMBEDDING, make_plan, make_state

RUN_ID = b"R" * 16
COHORT = tuple(f"node-{index}" for index in range(8))
KEYS = {name: TestSigner(name).public for name in COHORT}
ME = "node-2"


def settings(**changes: Any) -> PrivacySettings:
    values: dict[str, Any] = {
        "unit": "client", "epsilon": 8.0, "excess_levels": 0, "epoch_rounds": 4, "separation": 3,
    }  # fmt: skip
    return PrivacySettings(**{**values, **changes})


def first_offer(cohort: tuple[str, ...] = COHORT, **changes: Any) -> RoundOffer:
    plan = make_plan(rounds=8, privacy=settings(**changes))
    return build_offer(plan, make_state(), cohort, 1)


def dp_of(offer: RoundOffer) -> DpTerms:
    assert offer.dp is not None
    return offer.dp


def epoch_of(offer: RoundOffer) -> CorrelatedTerms:
    epoch = dp_of(offer).correlated
    assert epoch is not None
    return epoch


def following(offer: RoundOffer, **changes: Any) -> RoundOffer:
    """The next round of the epoch."""
    dp = at_position(dp_of(offer), epoch_of(offer).position + 1)
    return replace_offer(offer, **{"round_id": offer.round_id + 1, "dp": dp, **changes})


def changed(offer: RoundOffer, **changes: Any) -> DpTerms:
    """The terms of an offer with others in their place, those of the epoch too."""
    own = {name: changes.pop(name) for name in CorrelatedTerms.__struct_fields__ if name in changes}
    return structs.replace(
        dp_of(offer), correlated=structs.replace(epoch_of(offer), **own), **changes
    )


def guard(ledger: MemoryLedger | None = None) -> Guard:
    return Guard(
        ME, NodePolicy(), ledger or MemoryLedger(), signing_key=KEYS.get, members=lambda: 8
    )


def take_part(node: Guard, offer: RoundOffer, survivors: tuple[str, ...] | None = None) -> None:
    """Play an offered round up to the co-signature; up to the upload if nobody survives."""
    setup = node.judge(offer, RUN_ID, 0.0)
    share = node.epoch.share_for(offer)
    nothing_to_give(offer, setup, InsecureLabelledRng(1, "epoch"), share)
    assert node.charge(RUN_ID, offer, 0.0) == ""
    if survivors != ():
        node.cosigned(offer, survivors or offer.cohort)


def why(node: Guard, offer: RoundOffer, run_id: bytes = RUN_ID) -> str:
    with pytest.raises(OfferRefused) as caught:
        node.judge(offer, run_id, 0.0)
    return str(caught.value)


# --- what a node goes on with ---------------------------------------------------------------------


@pytest.mark.req("C-09", "C-16")
def test_a_node_goes_through_an_epoch_and_into_the_next() -> None:
    node, offer = guard(), first_offer()
    for _ in range(4):
        take_part(node, offer)
        last, offer = offer, following(offer)
    assert node.epoch.share_for(last) is None  # C-10: its seeds are gone
    again = replace_offer(first_offer(), round_id=9, dp=changed(first_offer(), epoch=b"n" * 16))
    take_part(node, again)
    take_part(node, following(again))


CHANGES: dict[str, tuple[Callable[[RoundOffer], dict[str, Any]], str]] = {
    "another epoch": (lambda o: {"dp": changed(o, epoch=b"x" * 16, position=1)}, "another epoch"),
    "clip": (lambda o: {"dp": changed(o, clip=2.0, position=1)}, "not those that the epoch began"),
    "scale": (lambda o: {"dp": changed(o, scale=4096, position=1)}, "not those that the epoch"),
    "noise": (lambda o: {"dp": changed(o, noise_multiplier=9.0, position=1)}, "not those that"),
    "smoothing": (lambda o: {"dp": changed(o, smoothing=0.5, position=1)}, "not those that"),
    "honest": (lambda o: {"dp": changed(o, honest=3, position=1)}, "not those that the epoch"),
    "rotation": (lambda o: {"dp": changed(o, rotation=False, position=1)}, "not those that"),
    "divisor": (lambda o: {"dp": changed(o, nodes=99, position=1)}, "not those that the epoch"),
    "length": (lambda o: {"dp": changed(o, rounds=9, position=1)}, "not those that the epoch"),
    "dimension": (lambda o: {"model_dim": DIM + 1}, "not those that the epoch began with"),
    "skipped": (lambda o: {"dp": changed(o, position=2)}, "round 2 is not the next one"),
    "beyond": (lambda o: {"dp": changed(o, position=4)}, "round 4 of an epoch of 4"),
}


@pytest.mark.req("C-09", "C-13", "C-16")
@pytest.mark.parametrize("case", CHANGES)
def test_a_round_that_does_not_continue_the_epoch_is_refused(case: str) -> None:
    node, offer = guard(), first_offer()
    take_part(node, offer)
    change, reason = CHANGES[case]
    assert reason in why(node, following(offer, **change(offer)))
    take_part(node, following(offer))  # a refusal costs nothing


@pytest.mark.req("C-16")
def test_an_epoch_of_another_run_is_another_epoch() -> None:
    node, offer = guard(), first_offer()
    take_part(node, offer)
    assert "another epoch" in why(node, following(offer), b"S" * 16)


@pytest.mark.req("C-09")
def test_a_cohort_that_grows_is_refused_and_one_that_shrinks_is_not() -> None:
    node, offer = guard(), first_offer()
    take_part(node, offer, survivors=COHORT[:7])
    assert "nodes that were not in the epoch's last sum" in why(node, following(offer))
    take_part(node, following(offer, cohort=COHORT[:7], neighbours=6))


@pytest.mark.req("C-10", "C-16")
def test_without_its_share_a_node_refuses_and_begins_anew() -> None:
    ledger, offer = MemoryLedger(), first_offer()
    take_part(guard(ledger), offer)
    restarted = guard(ledger)
    assert "has restarted since" in why(restarted, following(offer))
    assert len(ledger.history()) == 1
    take_part(restarted, replace_offer(offer, round_id=7))
    take_part(restarted, following(replace_offer(offer, round_id=7)))


@pytest.mark.req("C-09", "C-17")
def test_noise_that_was_drawn_for_a_round_without_a_view_ends_the_epoch_for_the_node() -> None:
    node, offer = guard(), first_offer()
    take_part(node, offer)
    take_part(node, following(offer), survivors=())  # it aborted
    retried = replace_offer(following(offer), round_id=8)
    assert "round 1 is not the next one" in why(node, retried)
    assert "round 2 is not the next one" in why(node, following(following(offer)))


@pytest.mark.req("C-16")
def test_an_offer_that_the_policy_refuses_leaves_the_epoch_as_it_was() -> None:
    node, offer = guard(), first_offer()
    take_part(node, offer)
    other = replace_offer(offer, round_id=5, scheme="insecure-plain")
    assert "insecure-plain" in why(node, other)
    take_part(node, following(offer))


def test_a_stored_offer_can_be_judged_as_if_its_epoch_began_with_it() -> None:
    node, last = guard(), following(first_offer(), cohort=COHORT[:7], neighbours=6)
    assert "has restarted since" in why(node, last)
    assert node.judge(as_first(last), RUN_ID, 0.0).cohort == COHORT[:7]
    independent = replace_offer(last, dp=None)
    assert as_first(independent) is independent


@pytest.mark.req("C-06", "C-08")
def test_a_node_is_charged_by_its_slot_and_the_coordinator_by_the_worst() -> None:
    offer, ledger = first_offer(), MemoryLedger()
    node = guard(ledger)
    take_part(node, offer)
    (entry,) = ledger.history().entries
    assert entry.event == cost_of(offer, 2).event  # node-2 of 8 in three slots
    assert isinstance(entry.event, ZeroConcentrated)
    assert entry.event.rho == 0
    worst = cost_of(offer)
    assert worst.unit == CLIENT
    assert isinstance(worst.event, ZeroConcentrated)
    assert worst.event.rho > 0


@pytest.mark.req("C-06")
def test_data_of_another_slot_does_not_go_into_the_sum() -> None:
    offer = first_offer()
    update = LocalUpdate(np.ones(DIM, np.float32), np.ones(EMBEDDING, np.float32), 1.0, 0.0, 0.0, 9)
    given = []
    for what in (update, None):
        node = guard()
        setup = node.judge(offer, RUN_ID, 0.0)
        share = node.epoch.share_for(offer)
        assert share is not None
        assert not share.gives_data
        rng = InsecureLabelledRng(4, "epoch")
        give = nothing_to_give if what is None else to_give
        args = (offer, setup, rng, share) if what is None else (what, offer, setup, rng, share)
        given.append(give(*args).vector)  # type: ignore[arg-type]
    assert np.array_equal(*given)


def test_an_update_that_cannot_be_given_draws_no_noise() -> None:
    offer, node = first_offer(separation=2), guard()
    setup = node.judge(offer, RUN_ID, 0.0)
    share = node.epoch.share_for(offer)
    assert share is not None
    assert share.gives_data
    bad = LocalUpdate(np.ones(DIM - 1, np.float32), np.ones(EMBEDDING), 1.0, 0.0, 0.0, 9)
    with pytest.raises(LocalProtocolError, match="shape"):
        to_give(bad, offer, setup, InsecureLabelledRng(4, "epoch"), share)
    nothing_to_give(offer, setup, InsecureLabelledRng(4, "epoch"), share)
    with pytest.raises(LocalProtocolError, match="without a share"):
        nothing_to_give(offer, setup, InsecureLabelledRng(4, "epoch"))


# --- what an offer may say ------------------------------------------------------------------------


@pytest.mark.req("C-11", "C-14")
@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"mechanism": "skellam"}, "skellam noise cannot be correlated"),
        ({"within": True}, "no clip that adapts"),
        ({"drop_levels": (0, 2)}, "none of it is taken back"),
        ({"nodes": 7}, "a cohort of 8 in an epoch of 7 nodes"),
        ({"nodes": 9}, "a cohort of 8 in an epoch of 9 nodes"),
        ({"honest": 2}, "those in two views could make it up"),
        ({"honest": 5}, "counts on 5 honest nodes, a sum has 4"),
        ({"band": (2,)}, "a band of 1 coefficients"),
        ({"band": (0, 1)}, "a band of 2 coefficients"),
        ({"smoothing": 1e-9}, "smoothing is"),
        ({"separation": 5}, "an epoch of 4 rounds"),
    ],
)
def test_an_offer_of_noise_that_is_not_what_it_claims_is_refused(
    terms: dict[str, Any], reason: str
) -> None:
    offer = first_offer()
    assert guard().judge(offer, RUN_ID, 0.0).dim == DIM
    assert reason in why(guard(), replace_offer(offer, dp=changed(offer, **terms), ring_bits=32))


@pytest.mark.req("C-11")
@pytest.mark.parametrize("n", [3, 4, 8, 25, 64, 300])
def test_noise_that_the_quorum_counts_on_never_fits_two_views(n: int) -> None:
    cohort = tuple(f"node-{index:03d}" for index in range(n))
    offer = first_offer(cohort, scale_bits=20)
    while offer.cohort and len(offer.cohort) >= dp_of(offer).honest + offer.colluders:
        assert epoch_fault(offer, dp_of(offer)) == ""
        offer = following(offer, cohort=offer.cohort[:-1])


@pytest.mark.req("C-12")
def test_rings_and_values_hold_the_noise_of_a_whole_band() -> None:
    offer = first_offer()
    dp, epoch = dp_of(offer), epoch_of(offer)
    encoding = noised_encoding_of(offer, dp)
    sigma, smoothing = (x * encoding.sensitivity.l2 for x in (dp.noise_multiplier, epoch.smoothing))
    variance = (sigma**2 * sum(a * a for a in epoch.band) + smoothing**2) / dp.honest
    assert share_variance(encoding.terms, DIM) == pytest.approx(variance)
    assert offer.ring_bits == encoding.ring_bits(8)
    reach = noise_tail(DISCRETE_GAUSSIAN, 8 * variance, 40 + np.log2(DIM))
    assert reach < 1 << (offer.ring_bits - 1)
    plain = NoiseTerms(DISCRETE_GAUSSIAN, dp.clip, dp.scale, dp.noise_multiplier, dp.honest)
    assert share_variance(plain, DIM) < variance / 10
    with pytest.raises(LocalProtocolError, match="no cost by round"):
        encoding.event(4)
    with pytest.raises(ConfigError, match=r"stretch is 0\.5"):
        replace(plain, stretch=0.5)


@pytest.mark.req("C-13")
def test_signs_and_divisor_are_those_of_the_epoch() -> None:
    offer = first_offer()
    later, other = following(offer), replace_offer(offer, dp=changed(offer, epoch=b"n" * 16))
    assert epoch_signs(dp_of(offer)) == epoch_signs(dp_of(later)) != epoch_signs(dp_of(other))
    encoding = noised_encoding_of(offer, dp_of(offer))
    updates = [np.full(DIM, 0.01 * (index + 1)) for index in range(3)]
    total = np.zeros(DIM, dtype=np.int64)
    for update in updates:
        seed = epoch_signs(dp_of(offer))
        total += encoding.encode(
            {"update": update}, InsecureLabelledRng(1, "epoch"), signs_seed=seed
        )
    setup = setup_of(later, RUN_ID, KEYS.get)
    result = SumReady(ring.from_signed(total, setup.ring_bits), COHORT[:5], (1,) * 5)
    mean = mean_of(result, later, setup)
    assert mean is not None
    assert divisor_of(dp_of(later)) == 8 / 3
    assert mean.delta == pytest.approx(sum(updates) / (8 / 3), abs=1e-3)
    assert mean.centroid is None


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.req("C-14")
@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        ({"unit": "none"}, "unit 'none'", 'set privacy.unit = "client"'),
        ({"mechanism": "skellam"}, "mechanism 'skellam'", "privacy.mechanism = "),
        ({"excess_levels": 4}, "taken back after dropouts", "set privacy.excess_levels = 0"),
        ({"quantile": 0.5}, "a clip that adapts", "set privacy.quantile = 0"),
        ({"epoch_rounds": 1}, "epochs of 1 round", "privacy.epoch_rounds to 2 or more"),
        ({"separation": 5}, "a separation of 5", "set privacy.separation to at most"),
        ({"separation": 1}, "privacy.separation is 1", "use 2 to 1024"),
        ({"epoch_rounds": 2000}, "privacy.epoch_rounds is 2000", "use 0 to 1024"),
    ],
)
def test_settings_that_do_not_go_together_name_the_one_to_change(
    change: dict[str, Any], reason: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        settings(**change)
    assert hint in caught.value.hint


@pytest.mark.req("C-14")
def test_a_server_that_does_not_add_up_and_a_coordinator_that_weighs_are_refused() -> None:
    privacy = PrivacySection(unit="client", excess_levels=0, epoch_rounds=4)
    config = CoordinatorConfig(
        CoordinatorSection(keys="", state=""),
        privacy=privacy,
        server={"kind": "fedadam"},
    )
    assert config.plan().privacy.epoch_rounds == 4
    with pytest.raises(ConfigError, match="fedadam") as caught:
        config.server_config()
    assert 'kind = "fedavg"' in caught.value.hint
    weighing = structs.replace(config, run=RunSection(scheme="ckks", weights="coordinator"))
    with pytest.raises(ConfigError, match="where the coordinator weighs"):
        weighing.plan()


@pytest.mark.req("C-04", "C-15")
def test_noise_that_integers_are_too_coarse_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="too little to be correlated") as caught:
        first_offer(noise_multiplier=0.05, scale_bits=4)
    assert "privacy.scale_bits" in caught.value.hint


# --- whom the coordinator asks --------------------------------------------------------------------


@pytest.mark.req("C-17")
def test_the_coordinator_goes_on_with_those_who_were_in_every_sum_while_they_are_enough() -> None:
    plan, offer, epochs = make_plan(rounds=8, privacy=settings()), first_offer(), Epochs()
    assert epochs.cohort(COHORT, plan, 8) == (COHORT, True)
    assert epochs.cohort(COHORT[:5], plan, 8) == (COHORT[:5], False)
    epochs.closed(offer, COHORT[:7])
    assert epochs.next_terms == at_position(dp_of(offer), 1)
    assert epochs.cohort(COHORT, plan, 8) == (COHORT[:7], True)
    assert epochs.cohort(COHORT[1:], plan, 8) == (COHORT[1:7], False)
    assert epochs.next_terms is not None
    least = dp_of(offer).honest + offer.colluders
    assert epochs.cohort(COHORT[: least - 1], plan, 8)[0] == COHORT[: least - 1]
    assert epochs.next_terms is None
    assert epochs.cohort(COHORT, plan, 8) == (COHORT, True)


@pytest.mark.req("C-17")
@pytest.mark.parametrize(("scheme", "n", "collusion"), [("masking", 1000, 0.05), ("ckks", 60, 0.1)])
def test_every_size_that_an_epoch_can_shrink_to_makes_a_round_that_nodes_accept(
    scheme: str, n: int, collusion: float
) -> None:
    """The quorum rises above what the plan makes of a smaller cohort, on sparse graphs as well."""
    names = tuple(f"node-{index:04d}" for index in range(n))
    plan = make_plan(
        rounds=8, scheme=scheme, dropout=0.1, collusion=collusion, privacy=settings(scale_bits=16)
    )
    first = build_offer(plan, make_state(), names, 1, members=n)
    least = dp_of(first).honest + first.colluders
    assert least < n
    for size in (n - 1, (n + least) // 2, least):
        offer = build_offer(
            plan,
            make_state(next_round=2),
            names[:size],
            1,
            members=n,
            epoch=at_position(dp_of(first), 1),
        )
        assert offer.quorum >= least
        assert (offer.neighbours < size - 1) == (scheme == "masking")
        check_offer(
            offer,
            RUN_ID,
            node_id=names[0],
            policy=NodePolicy(schemes=(scheme,), collusion=collusion),
            signing_key=dict.fromkeys(names, KEYS[ME]).get,
            facts=PolicyFacts(members=n),
        )


@pytest.mark.req("C-17")
def test_an_epoch_ends_with_its_last_round_and_with_an_abort() -> None:
    epochs, offer = Epochs(), first_offer()
    epochs.closed(offer, COHORT)
    epochs.closed(following(offer), ())
    assert epochs.next_terms is None
    epochs.closed(replace_offer(offer, dp=changed(offer, position=3)), COHORT)
    assert epochs.next_terms is None
    epochs.closed(replace_offer(offer, dp=None), COHORT)
    assert epochs.next_terms is None
