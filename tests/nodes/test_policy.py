"""What a policy says to an offer: each rule alone, at its limit, and with the line it stands in."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fl_core.config import ModelConfig, TrainConfig
from fl_core.parameters import ParamSpec
from nodes.config import training_bytes
from nodes.session.offer import build_offer
from nodes.session.policy import (
    DAY,
    NodePolicy,
    PolicyFacts,
    PolicyOrigin,
    TrainingFacts,
    check_policy,
    difference_refusal,
    facts_of_training,
    rounds_today,
    violations,
)
from secagg.errors import OfferRefused
from secagg.types import RefusalReason
from secagg.wire.messages import RoundOffer
from tests.support.run import make_plan, make_state

MODEL = ModelConfig(input_dim=6, hidden=(4,), embedding_dim=3)
SPEC = ParamSpec.from_model(MODEL)
TRAINING = TrainingFacts(SPEC.digest.hex(), SPEC.dim, learning_rate=0.01, steps=50)
NODES = tuple(f"node-{index}" for index in range(9))


def offer_for(n: int = 5, **changes: object) -> RoundOffer:
    made = build_offer(make_plan(), make_state(), NODES[:n], 1)
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return RoundOffer(**{**fields, "model_dim": SPEC.dim, **changes})


def forbidden(policy: NodePolicy, offer: RoundOffer | None = None, **facts: object) -> list[str]:
    """Return the settings that forbid an offer."""
    known = PolicyFacts(**facts)  # type: ignore[arg-type]
    return [found.key for found in violations(offer or offer_for(), policy, known)]


@pytest.mark.req("G-01")
def test_the_default_policy_takes_what_it_took_before() -> None:
    check_policy(offer_for(), NodePolicy(), PolicyFacts())
    assert NodePolicy(4, ("ckks",), 0.2, ("coordinator",)) == NodePolicy(
        min_cohort=4, schemes=("ckks",), collusion=0.2, weights=("coordinator",)
    )


@pytest.mark.req("G-01", "G-02")
@pytest.mark.parametrize(
    ("limits", "facts", "reason", "says"),
    [
        ({"schemes": ("ckks",)}, {}, "scheme_forbidden", r"schemes = \S+: .* 'masking'"),
        ({"min_cohort": 6}, {}, "cohort_too_small", "min_cohort = 6: the cohort has 5 nodes"),
        (
            {"collusion": 0.45},
            {"members": 9},
            "thresholds_unsafe",
            "collusion = 0.45: the offer withstands 1 colluding nodes, of 9 members 4 may be",
        ),
        (
            {"weights": ("coordinator",)},
            {},
            "weights_forbidden",
            r"weights = \S+: .* are 'private'",
        ),
        (
            {"require": "client", "epsilon": 8.0, "delta": 1e-5},
            {"unit": "record", "epsilon_after": 1.0},
            "privacy_required",
            r"require = \S+: .* protects single rows \(unit 'record'\)",
        ),
        (
            {"require": "client", "epsilon": 8.0, "delta": 1e-5},
            {"unit": "client", "epsilon_after": 8.125},
            "budget_spent",
            "epsilon = 8: the round would spend more than is left",
        ),
        (
            {"architectures": ("00" * 32, "11" * 32, "22" * 32)},
            {"training": TRAINING},
            "architecture_forbidden",
            rf'architectures = \["0+", "1+", and 1 more\]: .* {SPEC.digest.hex()}',
        ),
        (
            {"architectures": (SPEC.digest.hex(),)},
            {"training": replace(TRAINING, dim=SPEC.dim + 1)},
            "architecture_forbidden",
            rf"architectures = .* has {SPEC.dim + 1} parameters, the offer sums {SPEC.dim}",
        ),
        (
            {"max_learning_rate": 0.005},
            {"training": TRAINING},
            "learning_rate_too_high",
            r"max_learning_rate = 0\.005: the learning rate is 0\.01",
        ),
        (
            {"max_steps": 49},
            {"training": TRAINING},
            "training_too_long",
            "max_steps = 49: the round takes 50 steps",
        ),
        (
            {"min_difference": 2},
            {"previous": NODES[:6]},
            "cohort_too_similar",
            "min_difference = 2: the cohort differs by one node from that of the last sum",
        ),
        (
            {"max_rounds_a_day": 3},
            {"rounds_today": 3},
            "too_many_rounds",
            "max_rounds_a_day = 3: this node began 3 rounds within the last 24 hours",
        ),
    ],
)
def test_each_rule_refuses_alone_with_its_code_its_line_and_its_setting(
    limits: dict[str, object], facts: dict[str, object], reason: str, says: str
) -> None:
    key = says.split(" ")[0]
    lines = PolicyOrigin("policy.toml", {key: 7}, "")
    policy = NodePolicy(**limits, origin=lines)  # type: ignore[arg-type]
    known = PolicyFacts(**facts)  # type: ignore[arg-type]
    with pytest.raises(OfferRefused, match=f"^policy.toml line 7: {says}$") as caught:
        check_policy(offer_for(), policy, known)
    assert caught.value.reason == reason
    assert key in caught.value.hint
    assert [found.reason for found in violations(offer_for(), policy, known)] == [reason]


@pytest.mark.req("G-01")
@pytest.mark.parametrize(
    ("limits", "facts"),
    [
        ({"min_cohort": 5}, {}),
        ({"collusion": 0.3}, {"members": 5}),
        (
            {"require": "client", "epsilon": 8.0, "delta": 1e-5},
            {"unit": "client", "epsilon_after": 8.0},
        ),
        ({"architectures": ("11" * 32, SPEC.digest.hex())}, {"training": TRAINING}),
        ({"max_learning_rate": 0.01}, {"training": TRAINING}),
        ({"max_steps": 50}, {"training": TRAINING}),
        ({"min_difference": 2}, {"previous": NODES[:3]}),
        ({"min_difference": 2}, {"previous": NODES[:5]}),
        ({"min_difference": 2}, {"previous": None}),
        ({"max_rounds_a_day": 3}, {"rounds_today": 2}),
    ],
)
def test_an_offer_at_the_limit_passes(limits: dict[str, object], facts: dict[str, object]) -> None:
    assert forbidden(NodePolicy(**limits), **facts) == []  # type: ignore[arg-type]


@pytest.mark.req("G-02")
def test_a_setting_that_is_not_in_the_file_is_cited_as_the_default() -> None:
    table = PolicyOrigin("node.toml", {"schemes": 31}, "policy.")
    policy = NodePolicy(min_cohort=6, schemes=("ckks",), origin=table)
    texts = [found.why for found in violations(offer_for(), policy, PolicyFacts())]
    assert texts[0].startswith('node.toml line 31: policy.schemes = ["ckks"]: ')
    assert texts[1].startswith("node.toml (default): policy.min_cohort = 6: ")
    (bare,) = violations(offer_for(), NodePolicy(min_cohort=6), PolicyFacts())
    assert bare.why == "policy.min_cohort = 6: the cohort has 5 nodes"


@pytest.mark.req("G-02")
def test_a_refusal_fits_into_its_message_with_the_longest_settings() -> None:
    policy = NodePolicy(
        schemes=("x" * 10,) * 50,
        architectures=("ab" * 32,) * 500,
        origin=PolicyOrigin("p" * 64 + ".toml", {"architectures": 12345}, ""),
    )
    found = violations(offer_for(), policy, PolicyFacts(training=TRAINING))
    assert [each.key for each in found] == ["schemes", "architectures"]
    assert all(len(each.why) <= 500 for each in found)


@pytest.mark.req("G-01", "G-10")
def test_all_rules_that_forbid_an_offer_are_found_and_the_first_is_raised() -> None:
    policy = NodePolicy(
        min_cohort=9, require="record", epsilon=1.0, delta=1e-5, max_steps=1, min_difference=5
    )
    known = PolicyFacts(training=TRAINING, previous=NODES[:4])
    keys = ["min_cohort", "require", "max_steps", "min_difference", "epsilon"]
    assert [each.key for each in violations(offer_for(), policy, known)] == keys
    with pytest.raises(OfferRefused) as caught:
        check_policy(offer_for(), policy, known)
    assert caught.value.reason == RefusalReason.COHORT_TOO_SMALL


@pytest.mark.req("G-05")
@pytest.mark.parametrize("spent", [math.nan, math.inf, math.nextafter(2.0, 3.0)])
def test_a_budget_is_not_met_by_nonsense_and_its_refusal_tells_nothing_of_what_was_spent(
    spent: float,
) -> None:
    policy = NodePolicy(require="record", epsilon=2.0, delta=1e-5)
    known = PolicyFacts(unit="record", epsilon_after=spent)
    (found,) = violations(offer_for(), policy, known)
    other = violations(offer_for(), policy, replace(known, epsilon_after=77.0))
    assert [found] == other


@pytest.mark.req("G-05")
@pytest.mark.parametrize("unit", ["none", "record", "whatever", ""])
def test_a_required_unit_is_not_exchanged_for_another(unit: str) -> None:
    policy = NodePolicy(require="client", epsilon=8.0, delta=1e-5)
    assert forbidden(policy, unit=unit, epsilon_after=0.0) == ["require"]
    assert forbidden(NodePolicy(require="client"), unit="client", epsilon_after=0.0) == ["epsilon"]


@pytest.mark.req("G-06")
def test_limits_on_training_refuse_settings_that_cannot_be_read() -> None:
    for limit in ({"architectures": ("0" * 64,)}, {"max_learning_rate": 1.0}, {"max_steps": 9}):
        policy = NodePolicy(**limit)
        (found,) = violations(offer_for(), policy, PolicyFacts())
        assert found.why.endswith("the training settings of the offer cannot be read")
    nowhere = replace(TRAINING, learning_rate=math.nan)
    assert forbidden(NodePolicy(max_learning_rate=10.0), training=nowhere) == ["max_learning_rate"]


@pytest.mark.req("G-06")
def test_training_facts_are_those_of_the_settings_that_are_trained_with() -> None:
    train = TrainConfig(steps=50, learning_rate=0.01)
    assert facts_of_training(training_bytes(MODEL, train, 3, 8)) == TRAINING
    deeper = replace(MODEL, hidden=(4, 4))
    other = facts_of_training(training_bytes(deeper, train, 3, 8))
    assert other is not None
    assert other.architecture != TRAINING.architecture


@pytest.mark.req("G-06")
@pytest.mark.parametrize(
    "training",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 5000,
        b'{"model":{"input_dim":6},"train":{"learning_rate":NaN},"seed":0,"rounds":1}',
        b'{"model":{"input_dim":6},"train":{"steps":0},"seed":0,"rounds":1}',
        b'{"model":{"input_dim":6},"train":{},"seed":0,"rounds":1,"more":{"steps":1}}',
    ],
)
def test_malformed_training_settings_tell_nothing(training: bytes) -> None:
    assert facts_of_training(training) is None


@pytest.mark.req("G-07", "G-09")
@pytest.mark.parametrize("least", [0, 1, 2, 3, 5])
def test_cohorts_are_the_same_or_far_enough_apart(least: int) -> None:
    policy = NodePolicy(min_difference=least)
    for last in range(10):
        for now in range(3, 10):
            apart = abs(last - now)
            allowed = apart == 0 or apart >= least
            cohort, previous = NODES[:now][::-1], NODES[:last]
            assert (difference_refusal(previous, cohort, policy) == "") is allowed
            keys = [] if allowed else ["min_difference"]
            assert forbidden(policy, offer_for(now), previous=previous) == keys
    swapped = (*NODES[:4], "node-8")  # one left, one came: two nodes differ
    assert (difference_refusal(NODES[:5], swapped, policy) == "") is (least <= 2)
    assert difference_refusal(None, NODES[:5], policy) == ""


@pytest.mark.req("G-09")
def test_a_refused_sum_names_the_line_too() -> None:
    policy = NodePolicy(min_difference=3, origin=PolicyOrigin("policy.toml", {}, ""))
    assert difference_refusal(NODES[:5], NODES[:7], policy) == (
        "policy.toml (default): min_difference = 3: "
        "the cohort differs by 2 nodes from that of the last sum"
    )


@pytest.mark.req("G-08")
def test_rounds_of_the_last_24_hours_count_and_a_clock_set_back_clears_nothing() -> None:
    now = 1_000_000.0
    starts = [now - DAY - 1, now - DAY, now - DAY + 1, now - 5, now, now + 3600, math.nan]
    assert rounds_today(starts, now) == 5
    assert rounds_today([], now) == 0
    assert rounds_today(starts, now - 10 * DAY) == len(starts)
