"""Terms and shares of correlated noise: what a node draws, refuses and is charged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from secagg.dp.correlated import (
    BISR_BANDS,
    CorrelatedShare,
    CorrelatedTerms,
    best_band,
    calibrate,
    prefix_gain,
)
from secagg.dp.correlated_cost import concentrated, joint_gap, pattern_costs
from secagg.dp.sampler import keystream, sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN
from secagg.errors import ConfigError, LocalProtocolError, OfferRefused
from tests.support.randomness import InsecureLabelledRng

TERMS = CorrelatedTerms(
    band=(4, -3), sigma=60.0, smoothing=25.0, rounds=5, separation=2, honest=3
)  # fmt: skip
COHORT = ("a", "b", "c", "d")
DIM = 64


def rng(label: str = "") -> InsecureLabelledRng:
    return InsecureLabelledRng(5, label)


def play(share: CorrelatedShare, dim: int, source: InsecureLabelledRng) -> np.ndarray:
    """All the noise of one node, shape (rounds, dim)."""
    rounds = []
    for t in range(share.terms.rounds):
        share.admit(share.terms, t, COHORT)
        rounds.append(share.draw(dim, source))
        share.survived(COHORT)
    return np.array(rounds)


# --- the noise ------------------------------------------------------------------------------------


@pytest.mark.req("C-01", "C-03")
@pytest.mark.parametrize("band", [(4, -3), (2, -1), (8, -4, -1), (128, -64, -16, -8, -5)])
def test_noise_is_the_band_over_the_last_draws_and_a_fresh_one(band: tuple[int, ...]) -> None:
    terms = replace(TERMS, band=band, rounds=7)
    noise = play(CorrelatedShare(terms, 1), DIM, rng())
    source = rng()
    z, e = [], []
    for _ in range(terms.rounds):
        for out, variance in ((z, 60.0 * 60.0 / 3), (e, 25.0 * 25.0 / 3)):
            sampler = sampler_for(DISCRETE_GAUSSIAN, variance)
            out.append(sampler.draw(DIM, keystream(source(32))).astype(np.int64))
    for t in range(terms.rounds):
        want = e[t] + sum(a * z[t - k] for k, a in enumerate(band) if k <= t)
        assert np.array_equal(noise[t], want)
    assert noise.dtype == np.int64


@pytest.mark.req("C-01")
def test_the_sum_over_nodes_has_the_covariance_that_is_accounted() -> None:
    dim = 20_000
    noise = sum(play(CorrelatedShare(TERMS, 0), dim, rng(str(i))) for i in range(TERMS.honest))
    measured = noise @ noise.T / dim
    want = TERMS.covariance()
    # The variance of an entry is (Σ_tt·Σ_ss + Σ_ts²)/dim; 6 deviations, 25 entries: 5·10⁻⁸.
    deviation = np.sqrt((np.outer(want.diagonal(), want.diagonal()) + want**2) / dim)
    assert (np.abs(measured - want) < 6 * deviation).all()
    assert want.diagonal().max() == pytest.approx(TERMS.round_variance)
    assert abs(want[0, 1]) > 60 * deviation[0, 1]  # what independent noise would be caught by


def test_two_nodes_and_two_epochs_share_nothing() -> None:
    one, other = (play(CorrelatedShare(TERMS, 0), DIM, rng(label)) for label in ("a", "b"))
    assert not np.array_equal(one, other)


@pytest.mark.req("C-10")
def test_a_share_shows_no_seed_and_keeps_no_more_than_it_needs() -> None:
    seen: list[bytes] = []

    def recording(size: int) -> bytes:
        seen.append(rng(str(len(seen)))(size))
        return seen[-1]

    share = CorrelatedShare(replace(TERMS, band=(8, -4, -1)), 0)
    for _ in range(4):
        share.draw(DIM, recording)
        share.survived(COHORT)
    assert repr(share) == "CorrelatedShare(position=4, slot=0)"
    kept = [
        value for value in vars(share).values() if not isinstance(value, (int, CorrelatedTerms))
    ]
    held = {seed for seed in seen if any(seed in v for v in kept if not isinstance(v, frozenset))}
    assert held == {seen[4], seen[6]}  # z of the last two rounds, none of the fresh noise


# --- attendance -----------------------------------------------------------------------------------


@pytest.mark.req("C-06")
def test_data_goes_into_every_bth_round_only() -> None:
    share = CorrelatedShare(replace(TERMS, separation=3), 2)
    gives = []
    for _ in range(TERMS.rounds):
        gives.append(share.gives_data)
        share.draw(DIM, rng())
        share.survived(COHORT)
    assert gives == [False, False, True, False, False]
    for slot in (-1, 3):
        with pytest.raises(LocalProtocolError, match="slot"):
            CorrelatedShare(replace(TERMS, separation=3), slot)


@pytest.mark.req("C-09")
def test_noise_is_drawn_in_order_and_only_after_the_last_sum_held_the_node() -> None:
    share = CorrelatedShare(TERMS, 0)
    with pytest.raises(LocalProtocolError, match="survivors"):
        share.survived(COHORT)
    share.draw(DIM, rng())
    with pytest.raises(LocalProtocolError, match="turn"):
        share.draw(DIM, rng())
    with pytest.raises(OfferRefused):  # never heard whether it was in the sum
        share.admit(TERMS, 1, COHORT)
    share.survived(COHORT)
    with pytest.raises(LocalProtocolError, match="turn"):
        share.draw(DIM + 1, rng())
    for _ in range(TERMS.rounds - 1):
        share.draw(DIM, rng())
        share.survived(COHORT)
    with pytest.raises(LocalProtocolError, match="turn"):
        share.draw(DIM, rng())
    with pytest.raises(OfferRefused):
        share.admit(TERMS, TERMS.rounds, COHORT)
    with pytest.raises(LocalProtocolError, match="round 5"):
        TERMS.event(TERMS.rounds, 9.0, 10)


@pytest.mark.req("C-09")
def test_only_the_next_round_of_the_same_epoch_is_admitted() -> None:
    share = CorrelatedShare(TERMS, 0)
    share.draw(DIM, rng())
    share.survived(COHORT[:3])
    share.admit(TERMS, 1, COHORT[:3])
    share.admit(TERMS, 1, COHORT[1:3])
    for terms, position, cohort in (
        (TERMS, 0, COHORT[:3]),
        (TERMS, 2, COHORT[:3]),
        (TERMS, -1, COHORT[:3]),
        (replace(TERMS, sigma=59.0), 1, COHORT[:3]),
        (replace(TERMS, honest=2), 1, COHORT[:3]),
        (TERMS, 1, COHORT),  # d left, and comes back
        (TERMS, 1, ("a", "stranger")),
    ):
        with pytest.raises(OfferRefused) as refused:
            share.admit(terms, position, cohort)
        assert "next epoch" in refused.value.hint
    share.draw(DIM, rng())
    with pytest.raises(LocalProtocolError, match="survivors"):
        share.survived(COHORT)


# --- what it costs --------------------------------------------------------------------------------


@pytest.mark.req("C-08")
@pytest.mark.parametrize("slot", [None, 0, 1, 2])
def test_charges_add_up_to_the_epoch(slot: int | None) -> None:
    terms = replace(TERMS, separation=3, rounds=8)
    charges = [terms.event(t, 9.0, 10, slot=slot).rho for t in range(terms.rounds)]
    assert min(charges) >= 0
    assert sum(charges) == pytest.approx(terms.rho(9.0, 10, slot=slot), rel=1e-12)
    for t in range(terms.rounds):
        assert sum(charges[: t + 1]) == pytest.approx(
            terms.rho(9.0, 10, through=t, slot=slot), rel=1e-12
        )
        assert (charges[t] > 0) is (slot is None or t % 3 == slot) or slot is None


@pytest.mark.req("C-07", "C-08")
def test_a_first_charge_counts_the_rounds_that_follow() -> None:
    first = TERMS.event(0, 9.0, 10).rho
    leading = 0.5 * 81 / TERMS.covariance()[0, 0]
    assert first > 1.2 * leading
    assert TERMS.rho(9.0, 10) == max(TERMS.rho(9.0, 10, slot=slot) for slot in (0, 1))
    whole = pattern_costs(TERMS.covariance(), 2)[:, -1].max() * 81 / 2
    assert whole <= TERMS.rho(9.0, 10) <= whole * 1.001


@pytest.mark.req("C-05")
def test_the_gap_of_every_coordinate_is_paid_for() -> None:
    terms = replace(TERMS, sigma=4.0, smoothing=10.0, honest=20)
    gap = joint_gap(terms.band, terms.rounds, 20, sigma=4.0, smoothing=10.0)
    ideal = float(pattern_costs(terms.covariance(), 2)[:, -1].max()) / 2
    for dim in (1, 1000):
        assert terms.rho(1.0, dim) == concentrated(ideal, dim * gap) > (1 + 1e-6) * ideal
    alone = replace(terms, honest=1)
    assert alone.rho(1.0, 1000) < terms.rho(1.0, 1000)  # wider shares are nearer to ideal


@pytest.mark.req("C-04")
@pytest.mark.parametrize(("honest", "band"), [(1, (2, -1)), (20, (16, -15)), (500, (8, -4, -1))])
def test_calibrated_terms_cost_what_was_asked_for(honest: int, band: tuple[int, ...]) -> None:
    dim = 1_000_000
    terms = calibrate(
        0.05, l2=4096.0, dim=dim, band=band, rounds=32, separation=4, honest=honest
    )  # fmt: skip
    assert 0.05 * (1 - 1e-5) < terms.rho(4096.0, dim) <= 0.05
    gap = joint_gap(band, 32, honest, sigma=terms.sigma, smoothing=terms.smoothing)
    assert 0 < dim * gap < 2.0**-50
    assert terms.smoothing < 0.1 * band[0] * terms.sigma  # it is not what the noise consists of


@pytest.mark.req("C-04")
def test_noise_too_small_for_integers_is_refused() -> None:
    with pytest.raises(ConfigError, match="already more") as refused:
        calibrate(50.0, l2=100.0, dim=10**6, band=(8, -7), rounds=32, separation=8, honest=100)
    assert "scale" in refused.value.hint


@pytest.mark.req("C-02", "C-04")
@pytest.mark.parametrize(
    "changes",
    [
        {"band": ()},
        {"band": (4,)},
        {"band": (0, 1)},
        {"band": (-4, 3)},
        {"band": (4, -1025)},
        {"band": (1,) * 9},
        {"sigma": 0.0},
        {"sigma": 0.4},  # shared by 3: below what the sampler has
        {"sigma": float(1 << 23)},
        {"sigma": float("nan")},
        {"smoothing": 0.0},
        {"smoothing": float("inf")},
        {"rounds": 1},
        {"rounds": 1025},
        {"separation": 0},
        {"separation": 6},
        {"honest": 0},
    ],
    ids=str,
)
def test_terms_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        replace(TERMS, **changes)  # type: ignore[arg-type]
    assert refused.value.hint


# --- which band -----------------------------------------------------------------------------------


def test_the_bands_are_the_square_root_of_one_minus_x() -> None:
    for band in BISR_BANDS:
        square = np.convolve(band, band)[: len(band)]
        assert square.tolist() == [band[0] ** 2, -(band[0] ** 2), *[0] * (len(band) - 2)]


def test_a_band_gains_with_separation_and_loses_without() -> None:
    assert best_band(64, 16) == (16, -13)
    assert 2.1 < prefix_gain((16, -13), 64, 16) < 2.3
    assert prefix_gain((8, -4, -1), 64, 16) < prefix_gain((16, -13), 64, 16)
    assert prefix_gain(best_band(64, 1), 64, 1) < 1.0
