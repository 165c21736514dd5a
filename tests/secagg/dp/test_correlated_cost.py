"""The proof of specs/54, step by step, against exact enumeration in one coordinate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.dp.correlated_cost import (
    concentrated,
    covariance,
    joint_gap,
    pattern_costs,
    prefix_variances,
    sum_gap,
    toeplitz,
)
from secagg.errors import ConfigError

Array = NDArray[np.float64]
REACH = 40
"""Every exact distribution is over -REACH … REACH in each round."""
ORDERS = (1.01, 1.5, 2.0, 4.0, 16.0, 64.0)


def gaussian(variance: float, reach: int = REACH) -> Array:
    """Exact pmf of the discrete Gaussian."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * variance))
    return weights / weights.sum()


def shares(variance: float, nodes: int) -> Array:
    """Exact pmf of the sum of `nodes` discrete Gaussians of variance/nodes each."""
    one = gaussian(variance / nodes, 2 * REACH)
    total = one
    for _ in range(nodes - 1):
        total = np.convolve(total, one, mode="same")
    return total


def centred(pmf: Array, reach: int) -> Array:
    middle = len(pmf) // 2
    return pmf[middle - reach : middle + reach + 1]


def joint(band: tuple[int, int], rounds: int, z: Array, e: Array) -> Array:
    """Exact pmf of (N_0, …, N_{rounds-1}), N_t = band[0]·z_t + band[1]·z_{t-1} + e_t."""
    zs = np.arange(-12, 13)
    weights = centred(z, 12)
    x = np.arange(-REACH, REACH + 1)
    wide = np.zeros(8 * REACH + 1)
    wide[4 * REACH - len(e) // 2 : 4 * REACH + len(e) // 2 + 1] = e
    # step[x, before, z] = P(z)·P(e = x - band[0]·z - band[1]·before)
    offsets = x[:, None, None] - band[0] * zs - band[1] * zs[:, None]
    step = wide[offsets + 4 * REACH] * weights
    table = step[:, 12, :]  # nothing before the first round
    for _ in range(rounds - 1):
        table = np.tensordot(table, step, axes=(-1, 1))
    return table.sum(axis=-1)


def points(rounds: int) -> Array:
    grid = np.meshgrid(*[np.arange(-REACH, REACH + 1)] * rounds, indexing="ij")
    return np.stack(grid, axis=-1).astype(float)


def ideal(sigmas: Array) -> Array:
    x = points(len(sigmas))
    weights = np.exp(-0.5 * np.einsum("...i,ij,...j", x, np.linalg.inv(sigmas), x))
    return weights / weights.sum()


def moved(pmf: Array, shift: tuple[int, ...]) -> Array:
    """The pmf of noise + shift; what comes in from outside the grid is 0."""
    out = pmf
    for axis, by in enumerate(shift):
        out = np.roll(out, by, axis)
        edge = [slice(None)] * pmf.ndim
        edge[axis] = slice(0, by) if by >= 0 else slice(by, None)
        if by:
            out = out.copy()
            out[tuple(edge)] = 0
    return out


def renyi(p: Array, q: Array, order: float) -> float:
    # Where either is below what convolution in floats resolves, the tails weigh nothing.
    both = (p > 1e-250) & (q > 1e-250)
    logs = order * np.log(p[both]) + (1 - order) * np.log(q[both])
    return float(np.log(np.exp(logs - logs.max()).sum()) + logs.max()) / (order - 1)


def exact(rounds: int, nodes: int, *, sigma: float = 1.5, smoothing: float = 2.0) -> Array:
    return joint((2, -1), rounds, shares(sigma**2, nodes), shares(smoothing**2, nodes))


def gap_of(rounds: int, nodes: int, *, sigma: float = 1.5, smoothing: float = 2.0) -> float:
    return joint_gap((2, -1), rounds, nodes, sigma=sigma, smoothing=smoothing)


def small_covariance(rounds: int, *, sigma: float = 1.5, smoothing: float = 2.0) -> Array:
    return covariance((2, -1), rounds, sigma=sigma, smoothing=smoothing)


# --- how far from ideal ---------------------------------------------------------------------------


@pytest.mark.req("C-05")
@pytest.mark.parametrize(("variance", "nodes"), [(1.0, 2), (1.0, 3), (2.0, 4), (3.0, 10)])
def test_a_sum_of_shares_is_within_its_gap_of_a_discrete_gaussian(
    variance: float, nodes: int
) -> None:
    ratio = np.log(centred(shares(variance, nodes), 5) / centred(gaussian(variance), 5))
    bound = sum_gap(variance, nodes)
    assert np.abs(ratio).max() <= bound
    assert np.abs(ratio).max() >= bound / 30  # and the bound says something


def test_runs_of_many_shares_are_bounded_from_above_and_closely() -> None:
    for nodes in (65, 130, 1000):
        v = 1.7
        each = sum(
            math.log1p(e) - math.log1p(-e)
            for j in range(1, nodes)
            for e in [2 * sum(math.exp(-2 * (math.pi * m) ** 2 * v * j / (j + 1)) for m in (1, 2))]
        )
        assert each * (1 - 1e-12) <= sum_gap(v * nodes, nodes) <= 1.01 * each


@pytest.mark.req("C-05")
@pytest.mark.parametrize("rounds", [2, 3])
@pytest.mark.parametrize("smoothing", [1.5, 2.0])
def test_noise_of_an_epoch_is_off_by_the_theta_series_of_its_lattice(
    rounds: int, smoothing: float
) -> None:
    """One node, so that convolution alone is seen: its error is Σ_{k ≠ 0} exp(-2π²·kᵀQ⁻¹k)."""
    ratio = worst_ratio(exact(rounds, 1, smoothing=smoothing), smoothing=smoothing)
    a = toeplitz((2, -1), rounds)
    narrow = np.linalg.inv(np.eye(rounds) / 1.5**2 + a.T @ a / smoothing**2)
    ks = [np.array(k) for k in itertools.product(range(-3, 4), repeat=rounds) if any(k)]
    theta = sum(math.exp(-2 * math.pi**2 * float(k @ narrow @ k)) for k in ks)
    assert ratio == pytest.approx(theta, rel=2e-3)
    assert math.log1p(theta) - math.log1p(-theta) <= gap_of(rounds, 1, smoothing=smoothing)


@pytest.mark.req("C-05")
@pytest.mark.parametrize(("rounds", "nodes"), [(2, 2), (2, 5), (3, 3)])
def test_noise_of_an_epoch_is_within_its_gap_of_the_discrete_gaussian(
    rounds: int, nodes: int
) -> None:
    assert worst_ratio(exact(rounds, nodes)) <= gap_of(rounds, nodes)


def worst_ratio(p: Array, *, smoothing: float = 2.0) -> float:
    near = (slice(REACH - 8, REACH + 9),) * p.ndim
    g = ideal(small_covariance(p.ndim, smoothing=smoothing))
    return float(np.abs(np.log(p[near] / g[near])).max())


def test_without_use_the_gap_is_infinite() -> None:
    assert joint_gap((2, -1), 2, 3, sigma=0.1, smoothing=5.0) == math.inf
    assert joint_gap((128, -64), 2, 3, sigma=50.0, smoothing=5.0) == math.inf


# --- what a shift costs ---------------------------------------------------------------------------


@pytest.mark.req("C-05")
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)])
def test_the_renyi_divergence_is_that_of_the_covariance(nodes: int, shift: tuple[int, int]) -> None:
    p = exact(2, nodes)
    sigmas = small_covariance(2)
    rho = float(np.array(shift) @ np.linalg.inv(sigmas) @ np.array(shift)) / 2
    for order in ORDERS[:4]:
        measured = renyi(moved(p, shift), p, order)
        assert measured <= order * concentrated(rho, gap_of(2, nodes))
        assert measured == pytest.approx(order * rho, rel=0.02)


@pytest.mark.req("C-05")
@pytest.mark.parametrize(("nodes", "smoothing"), [(2, 2.0), (1, 3.0)])
def test_the_hockey_stick_divergence_is_below_what_zcdp_promises(
    nodes: int, smoothing: float
) -> None:
    p = exact(3, nodes, smoothing=smoothing)
    cost = float(np.linalg.inv(small_covariance(3, smoothing=smoothing)).sum())
    rho = concentrated(cost / 2, gap_of(3, nodes, smoothing=smoothing))
    for epsilon in (0.2, 0.5, 1.0, 2.0, 3.0):
        delta = float(np.maximum(moved(p, (1, 1, 1)) - math.exp(epsilon) * p, 0).sum())
        # Canonne, Kamath and Steinke 2020, Proposition 12
        a = np.linspace(1.01, 200, 20000)
        logs = (a - 1) * (a * rho - epsilon) + (a - 1) * np.log1p(-1 / a) - np.log(a)
        assert 0 < delta <= float(np.exp(logs.min()))


@pytest.mark.req("C-02")
def test_without_smoothing_the_sums_give_a_contribution_away() -> None:
    # N_0 = 2·z_0 is even: the first sum's parity is that of the data.
    z = shares(1.5**2, 3)
    nothing = np.zeros(2 * REACH + 1)
    nothing[REACH] = 1
    p = joint((2, -1), 2, z, nothing)
    q = moved(p, (1, 0))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert float(np.minimum(p, q).sum()) == 0.0  # told apart without fail, for any σ
    # Little smoothing leaks nearly as much, and the gap says so; enough does not.
    shift = np.array([1, 0])
    for smoothing, leaks in ((0.3, True), (2.5, False)):
        p = joint((2, -1), 2, z, shares(smoothing**2, 3))
        cost = float(shift @ np.linalg.inv(small_covariance(2, smoothing=smoothing)) @ shift) / 2
        measured = renyi(moved(p, (1, 0)), p, 2.0)
        assert (measured > 3 * 2 * cost) is leaks
        gap = joint_gap((2, -1), 2, 3, sigma=1.5, smoothing=smoothing)
        assert math.isinf(gap) is leaks


@pytest.mark.req("C-07")
@pytest.mark.parametrize("seed", range(6))
def test_contributions_chosen_by_what_was_seen_cost_no_more(seed: int) -> None:
    # δ_t is ±1 or 0, a function of the sums so far; the divergence is over all of y.
    p = exact(2, 2)
    draw = np.random.default_rng(seed)
    reply = draw.integers(-1, 2, size=2 * REACH + 1) if seed else np.where(
        np.arange(-REACH, REACH + 1) > 0, 1, -1
    )  # fmt: skip
    rho = float(pattern_costs(small_covariance(2), 1)[0, -1]) / 2
    q = np.zeros_like(p)  # of y where the first contribution is 1, the second reply[y_0]
    for y0 in range(1, 2 * REACH + 1):
        q[y0] = moved(p[y0 - 1], (int(reply[y0]),))
    for order in ORDERS[:4]:
        assert renyi(q, p, order) <= order * concentrated(rho, gap_of(2, 2))


@pytest.mark.req("C-09")
def test_nodes_that_leave_only_add_noise() -> None:
    core = joint((2, -1), 2, shares(1.5**2, 2), shares(2.0**2, 2))
    gone = joint((2, -1), 2, shares(1.5**2 / 2, 1), shares(2.0**2 / 2, 1)).sum(axis=1)
    both = np.zeros_like(core)  # one node more in round 0, not in round 1
    for by in range(-REACH, REACH + 1):
        both += gone[by + REACH] * moved(core, (by, 0))
    rho = float(pattern_costs(small_covariance(2), 1)[0, -1]) / 2
    for order in ORDERS[:4]:
        with_it = renyi(moved(both, (1, 1)), both, order)
        assert with_it <= renyi(moved(core, (1, 1)), core, order)
        assert with_it <= order * concentrated(rho, gap_of(2, 2))


@pytest.mark.req("C-08")
def test_later_rounds_tell_of_the_noise_in_a_nodes_last() -> None:
    # Data in round 0 only. Round 1 is published without it, and makes round 0 clearer.
    p = exact(2, 2)
    alone = p.sum(axis=1)
    first_only = small_covariance(2)[0, 0]
    measured = renyi(moved(p, (1, 0)), p, 2.0)
    assert renyi(moved(alone, (1,)), alone, 2.0) == pytest.approx(2 * 0.5 / first_only, rel=0.02)
    assert measured > 1.05 * 2 * 0.5 / first_only  # the leading block would undercount
    charged = float(pattern_costs(small_covariance(2), 2)[0, 0]) / 2
    assert measured == pytest.approx(2 * charged, rel=0.02)


@pytest.mark.req("C-05")
def test_the_price_of_the_gap_covers_every_order() -> None:
    for rho, gap in itertools.product((1e-4, 0.1, 3.0), (1e-15, 1e-6, 1e-2)):
        for order in (1 + 1e-9, 1 + 1e-3, 1 + math.sqrt(gap / rho), 2.0, 50.0, 1e6):
            # D is monotone in its order, so the least bound of any order above holds, too
            above = [order * (1 + x) for x in (0.0, 1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0)]
            above.append(max(order, 1 + math.sqrt(gap / rho)))
            bound = min(rho * a + (2 * a - 1) / (a - 1) * gap for a in above)
            assert bound <= order * concentrated(rho, gap) * (1 + 1e-9)
    assert concentrated(0.0, 0.1) == 0.0
    assert concentrated(1.0, math.inf) == math.inf


# --- the cost of a pattern ------------------------------------------------------------------------


@pytest.mark.req("C-07")
@pytest.mark.parametrize(
    ("band", "rounds", "separation"), [((4, -3), 7, 3), ((8, -4, -1), 6, 1), ((4, 3), 7, 1)]
)
def test_a_patterns_cost_bounds_all_directions_and_rises(
    band: tuple[int, ...], rounds: int, separation: int
) -> None:
    sigmas = covariance(band, rounds, sigma=5.0, smoothing=3.0)
    costs = pattern_costs(sigmas, separation)
    inverse = np.linalg.inv(sigmas)
    draw = np.random.default_rng(1)
    assert (np.diff(costs, axis=1) >= 0).all()
    for slot, last in itertools.product(range(separation), range(rounds)):
        worst = 0.0
        for _ in range(60):
            vectors = np.zeros((rounds, 4))
            for t in range(slot, last + 1, separation):
                vector = draw.normal(size=4) + 3
                vectors[t] = vector / np.linalg.norm(vector)
            worst = max(worst, float(np.einsum("ti,ts,si", vectors, inverse, vectors)))
        assert worst <= costs[slot, last]
        signs = np.zeros(rounds)
        signs[slot : last + 1 : separation] = 1.0
        assert costs[slot, last] == pytest.approx(signs @ np.abs(inverse) @ signs, rel=1e-5)


def test_prefix_variances_are_those_of_partial_sums() -> None:
    sigmas = covariance((8, -7), 12, sigma=2.0, smoothing=1.0)
    ones = np.tril(np.ones((12, 12)))
    assert prefix_variances(sigmas) == pytest.approx(np.diag(ones @ sigmas @ ones.T))


def test_toeplitz_of_an_epoch_shorter_than_the_band() -> None:
    assert toeplitz((8, -4, -1), 2).tolist() == [[8, 0], [-4, 8]]


def test_a_covariance_that_floats_cannot_invert_is_refused() -> None:
    with pytest.raises(ConfigError, match="cancel") as refused:
        pattern_costs(covariance((1, -1024), 8, sigma=1e6, smoothing=1.0), 2)
    assert "smoothing" in refused.value.hint
