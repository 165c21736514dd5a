"""From plan to offer to set-up: one reading for both sides, and refusals that name the rule."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.session.offer import build_offer, check_offer, encoding_of, setup_of
from nodes.session.policy import NodePolicy, PolicyFacts
from secagg.errors import ConfigError, OfferRefused
from secagg.wire.messages import (
    RoundOffer,
)
from tests.support.fleet import TestSigner
from tests.support.run import make_plan, make_state

RUN_ID = b"R" * 16


def replace_offer(offer: RoundOffer, **changes: object) -> RoundOffer:
    fields = {name: getattr(offer, name) for name in offer.__struct_fields__}
    return RoundOffer(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.req("S-01")
def test_both_sides_derive_the_same_round_from_an_offer() -> None:
    cohort = ("node-0", "node-1", "node-2")
    keys = {name: TestSigner(name).public for name in cohort}
    offer = build_offer(make_plan(), make_state(), cohort, 1)
    ours = setup_of(offer, RUN_ID, keys.get)
    theirs = check_offer(offer, RUN_ID, node_id="node-1", policy=NodePolicy(), signing_key=keys.get)
    assert ours == theirs
    assert ours.dim == encoding_of(offer).dim
    other = setup_of(replace_offer(offer, update_bound=5.0), RUN_ID, keys.get)
    assert other.offer_hash != ours.offer_hash


def offer_for(n: int = 5, **changes: object) -> RoundOffer:
    cohort = tuple(f"node-{index}" for index in range(n))
    return replace_offer(build_offer(make_plan(), make_state(), cohort, 1), **changes)


@pytest.mark.req("P-09")
def test_all_colluding_members_of_the_roster_may_be_in_a_small_cohort() -> None:
    """The coordinator chooses whom it asks: a fraction of those would be a fraction of nothing."""
    keys = {f"node-{index}": TestSigner(f"node-{index}").public for index in range(9)}
    cohort = ("node-0", "node-1", "node-2")
    offer = build_offer(make_plan(), make_state(), cohort, 1)
    with pytest.raises(OfferRefused, match="of 9 members 2 may be") as caught:
        check_offer(
            offer,
            RUN_ID,
            node_id="node-0",
            policy=NodePolicy(),
            signing_key=keys.get,
            facts=PolicyFacts(members=9),
        )
    assert caught.value.reason == "thresholds_unsafe"
    with pytest.raises(ConfigError, match="cannot withstand"):
        build_offer(make_plan(), make_state(), cohort, 1, members=9)
    assert make_plan().least_cohort(9) == 4
    cohort = tuple(sorted(keys))[:6]
    offer = build_offer(make_plan(), make_state(), cohort, 1, members=9)
    setup = check_offer(
        offer,
        RUN_ID,
        node_id="node-0",
        policy=NodePolicy(),
        signing_key=keys.get,
        facts=PolicyFacts(members=9),
    )
    assert (setup.colluders, setup.quorum) == (2, 5), "one dropout fewer than with two thirds"


@pytest.mark.req("S-06")
@pytest.mark.parametrize(
    ("changes", "policy", "reason", "says"),
    [
        ({"scheme": "insecure-plain"}, NodePolicy(), "scheme_forbidden", "policy.schemes"),
        ({"scheme": "ouija"}, NodePolicy(), "scheme_forbidden", "ouija"),
        ({}, NodePolicy(min_cohort=6), "cohort_too_small", "policy.min_cohort = 6"),
        ({"cohort": ("node-1", "node-2", "node-3")}, NodePolicy(), "not_in_cohort", "not in"),
        (
            {"cohort": ("node-0", "node-1", "sybil-1", "sybil-2", "sybil-3")},
            NodePolicy(),
            "unknown_member",
            "sybil-1, sybil-2, sybil-3",
        ),
        (
            {"neighbours": 2, "threshold": 3},
            NodePolicy(),
            "thresholds_unsafe",
            "2 neighbours: .* use at least 4, with threshold 3",
        ),
        ({"quorum": 3}, NodePolicy(), "thresholds_unsafe", "quorum 3 of 5 nodes.*at least 4"),
        ({"threshold": 2}, NodePolicy(), "thresholds_unsafe", "threshold 2.*at least 3"),
        ({"neighbours": 9}, NodePolicy(), "thresholds_unsafe", "9 neighbours in a cohort of 5"),
        (
            {"colluders": 0},
            NodePolicy(),
            "thresholds_unsafe",
            "withstands 0 colluding nodes, of 5 members 1 may be",
        ),
        ({}, NodePolicy(collusion=0.45), "thresholds_unsafe", "policy.collusion = 0.45"),
        ({"ring_bits": 16}, NodePolicy(), "parameters_unsafe", "can wrap"),
        ({"chunk_values": 12}, NodePolicy(), "parameters_unsafe", "multiple of 8"),
        ({"chunk_values": 2**20}, NodePolicy(), "parameters_unsafe", "do not fit a message"),
        ({"reference": b"abc"}, NodePolicy(), "model_unsuitable", "not a vector"),
        (
            {"reference": np.array([np.nan], "<f4").tobytes()},
            NodePolicy(),
            "model_unsuitable",
            "not a vector",
        ),
    ],
)
def test_an_offer_against_the_policy_is_refused_with_the_line_that_forbids_it(
    changes: dict[str, object], policy: NodePolicy, reason: str, says: str
) -> None:
    keys = {f"node-{index}": TestSigner(f"node-{index}").public for index in range(5)}
    with pytest.raises(OfferRefused, match=says) as caught:
        check_offer(
            offer_for(**changes), RUN_ID, node_id="node-0", policy=policy, signing_key=keys.get
        )
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"min_nodes": 2}, "min_nodes is 2"),
        ({"rounds": 0}, "rounds is 0"),
        ({"scheme": "rot13"}, "no scheme 'rot13'"),
        ({"value_bits": 30}, "value_bits is 30"),
        ({"liveness": 1.0}, "less than two heartbeats"),
        ({"phase_timeout": 0.0}, "phase_timeout is 0"),
        ({"input_timeout": 2e6}, "input_timeout is 2"),
        ({"update_bound": float("nan")}, "update_bound is nan"),
        ({"collusion": 0.5}, "collusion 0.5 is out of range"),
        ({"dropout": -0.1}, "dropout -0.1 is out of range"),
        ({"collusion": 0.4, "dropout": 0.4}, "cannot withstand"),
        ({"max_failures": 0}, "max_failures is 0"),
        ({"chunk_values": 12}, "chunk_values is 12"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_with_a_mend(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        make_plan(**changes)
    assert caught.value.hint
