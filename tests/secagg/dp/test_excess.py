"""Noise in components: how much is left, exact removal, what it is worth."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from secagg import ring
from secagg.dp.excess import (
    Components,
    draw_noise,
    expected_excess,
    new_seeds,
    remove_excess,
)
from secagg.dp.levels import choose_levels, excess_count, level_for
from secagg.dp.sampler import keystream, sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS, SKELLAM, NoiseTerms
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.randomness import InsecureLabelledRng

TARGET = 1e6
COHORTS = [(3, 3, 0), (5, 4, 1), (10, 7, 3), (30, 20, 9), (100, 67, 33), (1000, 667, 333)]
each_cohort = pytest.mark.parametrize(("nodes", "quorum", "colluders"), COHORTS)


def components(
    nodes: int = 30,
    quorum: int = 20,
    colluders: int = 9,
    *,
    mechanism: str = SKELLAM,
    levels: tuple[int, ...] | None = None,
    target: float = TARGET,
) -> Components:
    chosen = choose_levels(nodes, quorum) if levels is None else levels
    terms = NoiseTerms(mechanism, 1.0, 1 << 10, 1.0, quorum - colluders, drop_levels=chosen)
    share = target / terms.honest
    return Components.of(terms, share, nodes=nodes, colluders=colluders)


@pytest.mark.req("X-01")
@pytest.mark.req("X-04")
@each_cohort
def test_what_is_left_suffices_for_every_number_of_dropouts_and_no_less_would(
    nodes: int, quorum: int, colluders: int
) -> None:
    """In fractions: a float that is rounded down would be seen."""
    made = components(nodes, quorum, colluders)
    share = Fraction(TARGET / (quorum - colluders))
    target = share * (quorum - colluders)
    exact = [Fraction(variance) for variance in made.variances]
    for dropouts in range(nodes - quorum + 1):
        honest = nodes - dropouts - colluders
        needed = level_for(dropouts, made.levels)
        assert honest * sum(exact[: needed + 1]) >= target
        assert honest * sum(exact[:needed]) < target
    assert sum(exact) < share * Fraction(1 + 1e-12)  # and the whole share is what it was


@pytest.mark.req("X-01")
def test_the_variances_of_the_paper() -> None:
    """With a level for each dropout: σ²/n, then σ²/((n−k+1)(n−k)) (Jiang et al. 2024, §3)."""
    made = components(10, 6, 0, levels=(0, 1, 2, 3, 4), target=1e4)
    due = [1e4 / 10, *(1e4 / ((10 - k + 1) * (10 - k)) for k in range(1, 5))]
    assert made.variances == pytest.approx(due, rel=1e-12)


@pytest.mark.req("X-01")
@pytest.mark.parametrize("levels", [(0,), (0, 5), (0, 11), (0, 10, 12)])
def test_levels_that_end_elsewhere_than_the_terms_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        components(levels=levels)
    assert caught.value.hint == "end drop_levels with 10"


def test_a_component_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="squared steps") as caught:
        components(1000, 667, 333, target=100.0)
    assert "larger scale" in caught.value.hint


def test_without_levels_the_noise_is_one_component() -> None:
    made = components(levels=())
    assert made.levels == ()
    assert made.variances == (TARGET / 11,)
    assert [(case.shares, case.parts) for case in made.cases] == [(11, made.variances)]
    noise = draw_noise(
        made, 50, InsecureLabelledRng(1, "own"), new_seeds(made, keystream(bytes(32)))
    )
    drawn = sampler_for(SKELLAM, TARGET / 11).draw(50, InsecureLabelledRng(1, "own"))
    assert np.array_equal(noise, drawn)


@pytest.mark.req("X-09")
@each_cohort
def test_the_cases_are_the_fewest_contributors_at_each_level(
    nodes: int, quorum: int, colluders: int
) -> None:
    made = components(nodes, quorum, colluders)
    assert [case.shares for case in made.cases] == [nodes - d - colluders for d in made.levels]
    for case in made.cases:
        assert case.shares * case.share_variance == pytest.approx(TARGET, rel=1e-12)
        assert sum(case.parts) == pytest.approx(case.share_variance, rel=1e-12)


@pytest.mark.req("X-03")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noise_follows_from_the_private_source_and_the_seeds(mechanism: str) -> None:
    made = components(mechanism=mechanism)
    seeds = new_seeds(made, InsecureLabelledRng(1, "seeds"))
    assert len(set(seeds)) == 4

    def noise(source: str = "own", given: tuple[bytes, ...] = seeds) -> np.ndarray:
        return draw_noise(made, 200, InsecureLabelledRng(1, source), given)

    assert np.array_equal(noise(), noise())
    assert not np.array_equal(noise(), noise("another"))
    for index in range(4):
        other = (*seeds[:index], bytes(32), *seeds[index + 1 :])
        parts = [
            sampler_for(mechanism, made.variances[index + 1]).draw(200, keystream(seed))
            for seed in (seeds[index], bytes(32))
        ]
        assert np.array_equal(noise(given=other) - noise(), parts[1].astype(np.int64) - parts[0])
    for bad in (seeds[:3], (*seeds, bytes(32)), (*seeds[:3], bytes(31))):
        with pytest.raises(LocalProtocolError):
            noise(given=bad)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_variance_of_a_share(mechanism: str) -> None:
    """Fixed seed; 4·10^5 draws have a standard error of 0.22 % of the variance."""
    made = components(mechanism=mechanism)
    rng = InsecureLabelledRng(1, "variance")
    noise = draw_noise(made, 400_000, keystream(rng(32)), new_seeds(made, rng))
    assert noise.var() == pytest.approx(TARGET / 11, rel=0.012)
    assert abs(noise.mean()) < 5 * np.sqrt(TARGET / 11 / 400_000)


@pytest.mark.req("X-08")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("ring_bits", [8, 20, 31, 32])
@pytest.mark.parametrize("given", range(5))
def test_removal_is_exact_in_the_ring(mechanism: str, ring_bits: int, given: int) -> None:
    made = components(mechanism=mechanism)
    rng = InsecureLabelledRng(given, "removal")
    total, left = np.zeros(64, dtype=np.int64), np.zeros(64, dtype=np.int64)
    excess: dict[str, tuple[bytes, ...]] = {}
    for node in ("a", "b", "c"):
        seeds = new_seeds(made, rng)
        sources = [keystream(rng(32)), *map(keystream, seeds)]
        drawn = [
            sampler_for(mechanism, variance).draw(64, source).astype(np.int64)
            for variance, source in zip(made.variances, sources, strict=True)
        ]
        silent = node == "c"
        total += sum(drawn)
        left += sum(drawn) if silent else sum(drawn[: 5 - given])
        if not silent:
            excess[node] = seeds[4 - given :]
    summed = ring.from_signed(total, ring_bits)
    before = summed.copy()
    removed = remove_excess(summed, excess, made, ring_bits)
    assert np.array_equal(removed, ring.from_signed(left, ring_bits))
    assert np.array_equal(summed, before)
    assert removed.dtype == np.uint32


@pytest.mark.req("X-08")
def test_more_seeds_than_components_have_are_not_ours_to_subtract() -> None:
    with pytest.raises(LocalProtocolError):
        remove_excess(np.zeros(4, np.uint32), {"a": (bytes(32),) * 5}, components(), 32)


def test_the_gain() -> None:
    """30 nodes, of which 10 may drop out and 9 collude: v_4 = σ²/11, v_0 = σ²/21."""
    made = components()
    nobody = expected_excess(made, 0)
    assert nobody.before == pytest.approx(30 / 11)
    assert nobody.after == pytest.approx(30 / 21)
    assert nobody.gain == pytest.approx(21 / 11)
    four = expected_excess(made, 4, silent=6)
    assert four.after == pytest.approx(20 / 16 + 6 / 11)
    assert expected_excess(made, 10).gain == 1
    gains = [expected_excess(made, dropouts).gain for dropouts in range(11)]
    assert all(after <= before for before, after in itertools.pairwise(gains))
    silent = [expected_excess(made, 0, silent=count).after for count in range(31)]
    assert all(after > before for before, after in itertools.pairwise(silent))
    assert silent[-1] == pytest.approx(nobody.before)
    assert expected_excess(components(levels=()), 3).gain == 1
    for dropouts, count in ((11, 0), (0, 31), (0, -1)):
        with pytest.raises(LocalProtocolError):
            expected_excess(made, dropouts, silent=count)


# --- what is left is what the target is, as distributions ---------------------------------------


def law(mechanism: str, variance: float, size: int = 4096) -> np.ndarray:
    """Return the probabilities of a law on Z modulo `size`, by its Fourier series."""
    if mechanism == SKELLAM:
        angles = 2 * np.pi * np.arange(size) / size
        return np.fft.ifft(np.exp(variance * (np.cos(angles) - 1))).real
    x = np.minimum(np.arange(size), size - np.arange(size)).astype(np.float64)
    weights = np.exp(-(x**2) / (2 * variance))
    return weights / weights.sum()


def summed(laws: list[np.ndarray]) -> np.ndarray:
    return np.fft.ifft(np.prod([np.fft.fft(one) for one in laws], axis=0)).real


@pytest.mark.req("X-09")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("dropouts", range(4))
def test_what_is_left_has_the_law_of_the_target(mechanism: str, dropouts: int) -> None:
    """Skellam parts add up to Skellam; wide discrete Gaussians to one, as near as floats see."""
    made = components(10, 7, 3, mechanism=mechanism, target=400.0)
    case = made.cases[level_for(dropouts, made.levels)]
    left = summed([law(mechanism, part) for part in case.parts for _ in range(case.shares)])
    target = law(mechanism, 400.0)
    likely = target > 1e-7  # the Fourier transforms are exact to some 1e-16
    assert np.abs(left[likely] / target[likely] - 1).max() < 1e-7
    without = summed([law(mechanism, part) for part in case.parts for _ in range(case.shares - 1)])
    assert np.abs(without[likely] / target[likely] - 1).max() > 0.05  # one node less would show


def test_narrow_discrete_gaussians_do_not_add_up_to_one() -> None:
    """Why the accountant is told the parts (X-09)."""
    parts = [law(DISCRETE_GAUSSIAN, 0.1) for _ in range(4)]
    target = law(DISCRETE_GAUSSIAN, 0.4)
    assert np.abs(summed(parts)[:3] / target[:3] - 1).max() > 0.05


def test_every_number_of_dropouts_leaves_a_count_that_fits_the_wire() -> None:
    made = components(1000, 667, 333)
    assert {excess_count(dropouts, made.levels) for dropouts in range(334)} == set(range(5))
