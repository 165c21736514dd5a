"""Degree, threshold and quorum: what is chosen, and refusals whose advice holds."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT, SECURITY_BITS, SPARSE_FROM
from secagg.errors import ConfigError
from secagg.masking.parameters import (
    MAX_DEGREE,
    MaskingParameters,
    choose,
    graph_failure_bits,
    insecurity,
)
from tests.support.thresholds import NAMES, chosen, judged


def with_counts(n: int, colluders: int, dropouts: int) -> MaskingParameters:
    return choose(n, collusion=colluders / n, dropout=dropouts / n)


# --- quorum and co-signatures ----------------------------------------------------------------


@pytest.mark.req("P-01", "P-02")
def test_by_default_the_quorum_is_two_thirds() -> None:
    for n in range(3, 301):
        made = choose(n)
        assert made.quorum == max(3, -(-2 * n // 3))
        assert made.colluders == math.floor(0.33 * n + 1e-9)
        assert made.dropouts == (0 if n == 3 else n // 3)
        assert insecurity(n, **judged(made)) is None


@pytest.mark.req("P-01")
def test_fractions_are_of_the_cohort_rounded_down_but_for_the_rounding_of_floats() -> None:
    made = choose(100, collusion=0.29, dropout=0.07)  # 0.29 · 100 is 28.999999999999996
    assert (made.colluders, made.dropouts) == (29, 7)
    made = choose(50, collusion=0.0999, dropout=0.0999)
    assert (made.colluders, made.dropouts) == (4, 4)


@pytest.mark.req("P-02")
def test_two_views_share_an_honest_signer_and_the_round_outlasts_its_dropouts() -> None:
    for n in range(3, 31):
        for colluders, dropouts in itertools.product(range((n + 1) // 2), repeat=2):
            if colluders + 2 * dropouts >= n:
                with pytest.raises(ConfigError, match="need not share an honest node"):
                    with_counts(n, colluders, dropouts)
                continue
            made = with_counts(n, colluders, dropouts)
            assert 2 * made.cosigners - n > colluders
            assert max(3, made.cosigners, made.threshold) <= made.quorum <= n - made.dropouts
            assert made.quorum - colluders >= 2
            assert made.dropouts == dropouts or made.quorum == 3
            assert insecurity(n, **judged(made)) is None


@pytest.mark.req("P-02", "P-03", "P-06")
def test_what_is_chosen_holds_at_every_size() -> None:
    for n, made in chosen():
        assert made.threshold <= made.cosigners <= made.quorum == n - made.dropouts
        assert insecurity(n, **judged(made)) is None
        if made.neighbours == n - 1:
            assert made.threshold == made.quorum > max(made.colluders, n / 2)
        else:
            assert 3 <= made.threshold < made.neighbours < n - 1
            assert made.neighbours <= MAX_DEGREE
            assert made.neighbours % 2 == 0
            assert made.threshold % 2 == 1


@pytest.mark.req("P-03")
def test_on_a_sparse_graph_no_single_holder_opens_a_secret() -> None:
    made = choose(200, collusion=0.0, dropout=0.1)
    assert (made.colluders, made.threshold) == (0, 3)
    assert made.neighbours < 199
    reason = insecurity(200, **{**judged(made), "threshold": 2})
    assert reason is not None
    assert "use at least 3" in reason


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.req("P-01")
@pytest.mark.parametrize("n", [-1, 0, 1, 2, 10_001])
def test_a_cohort_that_cannot_be_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"a cohort of {n}") as refusal:
        choose(n)
    assert "use 3 to 10000 nodes" in refusal.value.hint


@pytest.mark.req("P-01")
@pytest.mark.parametrize("name", ["dropout", "collusion"])
@pytest.mark.parametrize("value", [-0.01, 0.5, 1.0, math.nan, math.inf])
def test_a_fraction_outside_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} .* out of range") as refusal:
        choose(30, **{name: value})
    assert "0.5" in refusal.value.hint


@pytest.mark.req("P-01")
@pytest.mark.parametrize("name", ["security_bits", "failure_bits"])
@pytest.mark.parametrize("value", [0, -3, 129])
def test_an_exponent_outside_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}") as refusal:
        choose(30, **{name: value})  # type: ignore[arg-type]
    assert refusal.value.hint == "use 1 to 128"


HINT = re.compile(
    r"with collusion ([0-9.]+) use dropout ([0-9.]+), "
    r"or with dropout ([0-9.]+) use collusion ([0-9.]+)"
)


@pytest.mark.req("P-02", "P-06")
@pytest.mark.parametrize(
    ("n", "collusion", "dropout"),
    [
        (3, 0.34, 0.34), (5, 0.2, 0.4), (10, 0.4, 0.4), (40, 0.3, 0.36), (99, 0.33337, 0.3334),
        (300, 1 / 3, 1 / 3), (2049, 0.2, 0.45), (3000, 0.2, 0.45), (5000, 0.33, 1 / 3),
        (10_000, 0.33, 1 / 3), (10_000, 0.499, 0.499),
    ],
)  # fmt: skip
def test_a_refusal_names_the_nearest_settings_that_work(
    n: int, collusion: float, dropout: float
) -> None:
    with pytest.raises(ConfigError, match=f"{n} nodes cannot withstand") as refusal:
        choose(n, collusion=collusion, dropout=dropout)
    found = HINT.fullmatch(refusal.value.hint)
    assert found is not None
    same_collusion, fewer_dropouts, same_dropout, fewer_colluders = map(float, found.groups())
    first = choose(n, collusion=same_collusion, dropout=fewer_dropouts)
    second = choose(n, collusion=fewer_colluders, dropout=same_dropout)
    dropouts, colluders = math.floor(fewer_dropouts * n + 1e-9), second.colluders
    assert insecurity(n, **judged(first)) is None
    assert insecurity(n, **judged(second)) is None
    with pytest.raises(ConfigError):
        choose(n, collusion=collusion, dropout=(dropouts + 1) / n)
    with pytest.raises(ConfigError):
        choose(n, collusion=(colluders + 1) / n, dropout=dropout)


@pytest.mark.req("P-06")
def test_more_neighbours_than_a_message_carries_is_refused() -> None:
    bits = {"security_bits": 128, "failure_bits": 128}
    assert choose(2049, **bits).neighbours == 2048 == MAX_DEGREE
    with pytest.raises(ConfigError, match="at most 2048 neighbours is not enough"):
        choose(2050, **bits)
    assert choose(10_000, collusion=0.1, dropout=0.1).neighbours < 150


# --- settings that others chose --------------------------------------------------------------

ADVICE = re.compile(r"use (?:at (?:least|most) )?(\d+)(?:,? with threshold (\d+))?$")


def followed(setting: dict[str, int], reason: str) -> dict[str, int]:
    """Return the setting with what `reason` advises."""
    found = ADVICE.search(reason)
    assert found is not None, reason
    field = next(name for name in NAMES if name in reason.replace(":", "").split()[:2])
    changed = {**setting, field: int(found[1])}
    return changed | ({"threshold": int(found[2])} if found[2] else {})


GOOD = {"neighbours": 60, "threshold": 55, "quorum": 90, "colluders": 33}


@pytest.mark.req("P-07")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"threshold": 4},
            "threshold 4 of 60 neighbours: 2 colluding neighbours in a window are likelier than "
            r"2\^-40; use at least 55",
        ),
        ({"threshold": 54}, "27 colluding neighbours in a window .* use at least 55"),
        ({"threshold": 60}, "more survivors than a window of 30 has places; use at most 59"),
        ({"neighbours": 100}, "100 neighbours in a cohort of 100; use 99"),
        ({"neighbours": 1}, "1 neighbours in a cohort of 100; use 2"),
        ({"neighbours": 10}, "all 5 in a window collude .* use at least 50, with threshold 49"),
        ({"quorum": 66}, "two sets of co-signers need not share an honest node; use at least 67"),
        ({"quorum": 2}, "could subtract its own input; use at least 67"),
        ({"quorum": 34}, "fewer than two honest ones are in the sum; use at least 67"),
        ({"quorum": 101}, "is never met; use at most 100"),
        ({"neighbours": 99, "threshold": 33}, "33 colluding holders reach it; use at least 51"),
        ({"neighbours": 99, "threshold": 50}, "not more than half of them; use at least 51"),
        ({"neighbours": 99, "threshold": 101}, "is never met; use at most 100"),
        ({"neighbours": 99, "threshold": 91}, "quorum 90 is below threshold 91, .* at least 91"),
    ],
)
def test_an_unsafe_setting_is_refused_with_the_nearest_safe_one(
    change: dict[str, int], reason: str
) -> None:
    assert insecurity(100, **GOOD) is None
    setting = {**GOOD, **change}
    found = insecurity(100, **setting)
    assert found is not None
    assert re.search(reason, found), found
    better = followed(setting, found)
    assert better != setting
    further = insecurity(100, **better)
    if further is not None:  # the advice is on one number; the one it hangs on may be next
        assert insecurity(100, **followed(better, further)) is None


@pytest.mark.req("P-07")
def test_a_cohort_that_hides_nobody_is_refused() -> None:
    few = {"neighbours": 1, "threshold": 2, "quorum": 2, "colluders": 0}
    assert "use at least 3" in str(insecurity(2, **few))
    for colluders in (-1, 9, 10):
        setting = {"neighbours": 9, "threshold": 10, "quorum": 10, "colluders": colluders}
        assert "assume 0 to 8" in str(insecurity(10, **setting))
    assert insecurity(10, **{**setting, "colluders": 8}) is None


@pytest.mark.req("P-07")
@settings(deadline=None, max_examples=300)
@given(st.data(), st.integers(3, 150))
def test_following_the_advice_always_ends_in_a_safe_setting(data: st.DataObject, n: int) -> None:
    setting = {
        "neighbours": data.draw(st.integers(0, n + 5)),
        "threshold": data.draw(st.integers(0, n + 5)),
        "quorum": data.draw(st.integers(0, n + 5)),
        "colluders": data.draw(st.integers(0, n - 2)),
    }
    for _ in range(5):
        reason = insecurity(n, **setting)
        if reason is None:
            break
        setting = followed(setting, reason)
    assert insecurity(n, **setting) is None
    half = -(-setting["neighbours"] // 2)
    if 2 * half >= n - 1:
        assert setting["threshold"] > max(setting["colluders"], n // 2)
    else:
        assert graph_failure_bits(n, **setting) >= SECURITY_BITS
    assert setting["quorum"] - setting["colluders"] >= 2
    assert 2 * setting["quorum"] - n > setting["colluders"]


@pytest.mark.req("P-07")
def test_an_even_threshold_is_judged_by_the_colluders_who_reach_it() -> None:
    made = choose(500, collusion=0.1, dropout=0.1)
    even = {**judged(made), "threshold": made.threshold - 1}
    reason = insecurity(500, **even)
    assert reason is not None, "as many colluders as the threshold fit in two windows"
    assert reason.endswith(f"use at least {made.threshold}")
    assert insecurity(500, **{**even, "threshold": made.threshold + 1}) is None


@pytest.mark.req("P-04")
def test_a_colluder_too_many_tells_on_a_small_cohort() -> None:
    setting = {"neighbours": 22, "threshold": 11, "quorum": 45}
    bits = [graph_failure_bits(50, **setting, colluders=count) for count in (5, 6, 10)]
    assert bits == [math.inf, pytest.approx(6.5, abs=0.05), 0.0], "as P-06 says"
    complete = {"neighbours": 49, "threshold": 45, "quorum": 45}
    assert [insecurity(50, **complete, colluders=count) is None for count in (39, 40)] == [
        True,
        False,
    ]
    assert choose(1000).neighbours == 999


@pytest.mark.req("P-06")
def test_small_cohorts_get_the_complete_graph() -> None:
    little = {"collusion": 0.02, "dropout": 0.02}
    assert choose(SPARSE_FROM - 1, **little).neighbours == SPARSE_FROM - 2
    assert choose(SPARSE_FROM, **little).neighbours < SPARSE_FROM // 2


@pytest.mark.req("P-07")
def test_more_security_bits_ask_for_more() -> None:
    made = choose(500, collusion=0.1, dropout=0.1)
    assert insecurity(500, **judged(made), security_bits=30) is None
    assert insecurity(500, **judged(made), security_bits=60) is not None


def test_the_defaults_are_the_module_s() -> None:
    made = choose(90)
    assert made == choose(90, collusion=DEFAULT_COLLUSION, dropout=DEFAULT_DROPOUT)
    assert (made.neighbours, made.threshold, made.quorum, made.cosigners) == (89, 60, 60, 60)
