"""Degree, threshold and quorum of a round, computed from what it must withstand.

`choose` takes the cohort, the fraction that may collude (of all that the cohort is taken from) and
the fraction that may drop out, and returns the sparsest graph that fails with negligible
probability, or the complete graph where no sparse one does. `insecurity` judges a setting that
somebody else chose. Both count exactly: the tails are integers over binomial coefficients, and
floats only print them.

Source: specs/31-thresholds.md, which derives every formula; Bell et al. 2020 for the idea.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from secagg.assumptions import (
    DEFAULT_COLLUSION,
    DEFAULT_DROPOUT,
    FAILURE_BITS,
    SECURITY_BITS,
    SPARSE_FROM,
    colluders_among,
    fraction_of,
    shortened,
)
from secagg.errors import ConfigError
from secagg.masking.graph import window_quota
from secagg.tails import bars, failure_bits_of, tail
from secagg.types import MAX_COHORT

__all__ = [
    "GRAPH_DRAWS",
    "MAX_BITS",
    "MAX_DEGREE",
    "MaskingParameters",
    "choose",
    "graph_failure_bits",
    "insecurity",
    "liveness_bits",
]

MAX_BITS: Final = 128
"""Highest of either; so far, some fraction always is allowed that a hint can name."""
MAX_DEGREE: Final = 2048
"""Most neighbours: one message carries an advert of 1.4 kB for each."""
GRAPH_DRAWS: Final = 4
"""Graphs that an adversary may see before it settles for one: attempts at the reveal (P-04)."""


@dataclass(frozen=True, slots=True)
class MaskingParameters:
    """What a round of masking takes, and what it withstands."""

    neighbours: int
    """Degree k; cohort size - 1 is the complete graph, anything below is even."""
    threshold: int
    """Shamir threshold t among a node and its neighbours."""
    quorum: int
    """q: fewest nodes in adverts, sharers and survivors."""
    cosigners: int
    """c: signatures over one view that a node asks for before it reveals; at most the quorum."""
    colluders: int
    """A: nodes of the cohort that may collude with the coordinator."""
    dropouts: int
    """D: nodes that may vanish at any time of the round, which still ends with a sum."""


def choose(
    n: int,
    *,
    dropout: float = DEFAULT_DROPOUT,
    collusion: float = DEFAULT_COLLUSION,
    security_bits: int = SECURITY_BITS,
    failure_bits: int = FAILURE_BITS,
    population: int | None = None,
) -> MaskingParameters:
    """Return the parameters of a round of `n` nodes (P-01 to P-06, P-09).

    Args:
        n: Size of the cohort, 3 to `MAX_COHORT`.
        dropout: Fraction of the cohort that may vanish, in [0, 1/2).
        collusion: Fraction of the population that may collude, in [0, 1/2).
        security_bits: The graph exposes an input with probability at most 2^-security_bits.
        failure_bits: The graph loses the round with probability at most 2^-failure_bits.
        population: Nodes that the cohort is taken from, by default itself; all that collude of
            them may be in it. Where given, the round withstands as many dropouts as that leaves
            room for.

    Raises:
        ConfigError: a number is out of range, or nothing withstands that much; the hint names the
            nearest dropout for this collusion and the nearest collusion for this dropout.
    """
    _check(n, {"dropout": dropout, "collusion": collusion})
    for name, bits in (("security_bits", security_bits), ("failure_bits", failure_bits)):
        if not 1 <= bits <= MAX_BITS:
            raise ConfigError(f"{name} is {bits}", hint=f"use 1 to {MAX_BITS}")
    colluders = colluders_among(max(n, population or n), collusion)
    dropouts = math.floor(dropout * n + 1e-9)
    aim = _Aim(n, security_bits, failure_bits)
    found = _solve(aim, colluders, dropouts)
    if found is not None:
        return found
    if colluders + 2 * dropouts >= n:
        why = "two sets of co-signers need not share an honest node"
    else:
        why = f"a graph with at most {MAX_DEGREE} neighbours is not enough"
    fewer = bisect_left(range(dropouts), True, key=lambda d: _solve(aim, colluders, d) is None) - 1
    if population is not None and fewer >= 0:
        found = _solve(aim, colluders, fewer)
        if found is not None:
            return found
    loyal = bisect_left(range(colluders), True, key=lambda a: _solve(aim, a, dropouts) is None) - 1
    raise ConfigError(
        f"{n} nodes cannot withstand {colluders} that collude and {dropouts} that drop out: {why}",
        hint=f"with collusion {shortened(collusion)} use dropout {fraction_of(fewer, n)}, "
        f"or with dropout {shortened(dropout)} use collusion {fraction_of(loyal, n)}",
    )


def insecurity(
    n: int,
    *,
    neighbours: int,
    threshold: int,
    quorum: int,
    colluders: int,
    security_bits: int = SECURITY_BITS,
) -> str | None:
    """Tell why a setting does not protect an input, with the nearest that does; None if it does.

    It judges privacy, and refuses what can never end with a sum; it does not judge how many
    dropouts the setting withstands (P-07).

    Args:
        n: Size of the cohort.
        neighbours: Degree k that `build_graph` is given.
        threshold: Shamir threshold t.
        quorum: Fewest nodes in adverts, sharers and survivors.
        colluders: Nodes of the cohort that collude with the coordinator.
        security_bits: The graph may expose an input with probability 2^-security_bits.
    """
    if n < 3:
        return f"a cohort of {n}: each contributor could subtract its own input; use at least 3"
    if not 2 <= neighbours <= n - 1:
        nearest = max(2, min(neighbours, n - 1))
        return f"{neighbours} neighbours in a cohort of {n}; use {nearest}"
    if not 0 <= colluders <= n - 2:
        return f"{colluders} colluding nodes of {n} leave nothing to hide; assume 0 to {n - 2}"
    least = max(3, colluders + 2, _majority(n, colluders))
    if not least <= quorum <= n:
        return _bad_quorum(n, quorum, colluders)
    reason = (
        _bad_threshold(n, threshold, colluders)
        if _half(n, neighbours) == 0
        else _bad_window(
            n,
            neighbours,
            threshold,
            quorum=quorum,
            colluders=colluders,
            security_bits=security_bits,
        )
    )
    if reason is None and threshold > quorum:
        reason = (
            f"quorum {quorum} is below threshold {threshold}, the fewest that can open a sum; "
            f"use at least {threshold}"
        )
    return reason


@lru_cache(maxsize=256)
def graph_failure_bits(
    n: int, *, neighbours: int, threshold: int, quorum: int, colluders: int
) -> float:
    """Return -log2 of the bound on the probability that the graph exposes an input (P-04).

    It is infinite where that cannot happen, and 0 where the bound says nothing.
    """
    half = _half(n, neighbours)
    if not half:
        return math.inf if threshold > colluders else 0.0
    ways = tail(quorum, max(colluders, 1), half, _colluder_bar(threshold)) * n * GRAPH_DRAWS
    return failure_bits_of(ways, math.comb(quorum, half))


@lru_cache(maxsize=256)
def liveness_bits(n: int, *, neighbours: int, threshold: int, dropouts: int) -> float:
    """Return -log2 of the bound on the probability that the graph loses the round (P-05).

    It is infinite where `dropouts` nodes, whichever they are, cannot lose it.
    """
    half = _half(n, neighbours)
    if not half:
        return math.inf if n - dropouts >= threshold else 0.0
    bar = half - window_quota(threshold) + 1
    return failure_bits_of(tail(n, dropouts, half, max(bar, 0)) * n, math.comb(n, half))


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a choice is for: cohort size and the two exponents."""

    n: int
    security_bits: int
    failure_bits: int


@lru_cache(maxsize=1024)
def _solve(aim: _Aim, colluders: int, dropouts: int) -> MaskingParameters | None:
    """Return the sparsest setting, None if there is none; fewer of either never is harder."""
    n = aim.n
    quorum = max(3, n - dropouts)
    if colluders + 2 * dropouts >= n or quorum - colluders < 2:  # P-02
        return None
    majority = _majority(n, colluders)
    sparse = _sparse(aim, quorum, colluders, dropouts)
    if sparse is not None:
        half, quota = sparse
        neighbours, threshold = 2 * half, 2 * quota - 1
    elif n - 1 <= MAX_DEGREE:
        neighbours, threshold = n - 1, quorum
    else:
        return None
    return MaskingParameters(
        neighbours=neighbours,
        threshold=threshold,
        quorum=quorum,
        cosigners=max(majority, threshold),
        colluders=colluders,
        dropouts=min(dropouts, n - quorum),  # of three nodes none may be missing
    )


def _sparse(aim: _Aim, quorum: int, colluders: int, dropouts: int) -> tuple[int, int] | None:
    """Return the least h = k/2 that is private and live, and its least private w; or None."""
    if aim.n < SPARSE_FROM:
        return None
    most = min((aim.n - 2) // 2, MAX_DEGREE // 2)  # beyond it the graph is complete
    odds = _privacy_odds(aim.n, aim.security_bits)
    private = bars(quorum, max(colluders, 1), odds=odds, most=most)  # P-03
    live = bars(aim.n, dropouts, odds=aim.n << aim.failure_bits, most=most)
    for half, (quota, losses) in enumerate(zip(private, live, strict=True), start=1):
        if half - quota + 1 >= losses:  # a window that is too thin has lost that many
            return half, quota
    return None


def _privacy_odds(n: int, security_bits: int) -> int:
    """Return the least 1/p that P-04 asks for, p for a single window to hold too many."""
    return GRAPH_DRAWS * n << security_bits


def _majority(n: int, colluders: int) -> int:
    """Return how many co-signers any two sets of which share an honest node (P-02)."""
    return (n + colluders) // 2 + 1


def _half(n: int, neighbours: int) -> int:
    """Return k/2 as `build_graph` takes it with all n on the circle; 0 if that is complete."""
    half = -(-neighbours // 2)
    return half if 2 * half < n - 1 else 0


def _colluder_bar(threshold: int) -> int:
    """Return w: fewer colluders than that in each of two windows hold fewer than t shares."""
    return (threshold + 1) // 2


def _bad_quorum(n: int, quorum: int, colluders: int) -> str:
    least = max(3, colluders + 2, _majority(n, colluders))
    if quorum > n:
        return f"quorum {quorum} of {n} nodes is never met; use at most {n}"
    if quorum < 3:
        why = "each of two contributors could subtract its own input"
    elif quorum < colluders + 2:
        why = f"beside {colluders} colluding nodes fewer than two honest ones are in the sum"
    else:
        why = f"with {colluders} colluding, two sets of co-signers need not share an honest node"
    return f"quorum {quorum} of {n} nodes: {why}; use at least {least}"


def _bad_threshold(n: int, threshold: int, colluders: int) -> str | None:
    """Judge the complete graph, where all n hold shares of each secret."""
    if threshold > n:
        return f"threshold {threshold} of {n} share holders is never met; use at most {n}"
    least = max(colluders, n // 2) + 1
    if threshold >= least:
        return None
    why = (
        f"{colluders} colluding holders reach it"
        if threshold <= colluders
        else "it is not more than half of them"
    )
    return f"threshold {threshold} of {n} share holders: {why}; use at least {least}"


def _bad_window(
    n: int, neighbours: int, threshold: int, *, quorum: int, colluders: int, security_bits: int
) -> str | None:
    """Judge a sparse graph."""
    half, limit = _half(n, neighbours), f"2^-{security_bits}"
    odds = _privacy_odds(n, security_bits)
    caps = bars(quorum, max(colluders, 1), odds=odds, most=(n - 2) // 2)
    quota = caps[half - 1]
    if quota > half:
        wider = next((h for h, bar in enumerate(caps, start=1) if h > half and bar <= h), 0)
        degree = 2 * wider if wider else n - 1
        least = 2 * caps[wider - 1] - 1 if wider else max(colluders, n // 2) + 1
        return (
            f"{neighbours} neighbours: all {half} in a window collude with a probability above "
            f"{limit}; use at least {degree}, with threshold {least}"
        )
    if threshold < 2 * quota - 1:
        return (
            f"threshold {threshold} of {neighbours} neighbours: {_colluder_bar(threshold)} "
            f"colluding neighbours in a window are likelier than {limit}; "
            f"use at least {2 * quota - 1}"
        )
    if window_quota(threshold) > half:
        return (
            f"threshold {threshold} of {neighbours} neighbours asks for more survivors than a "
            f"window of {half} has places; use at most {2 * half - 1}"
        )
    return None


def _check(n: int, fractions: dict[str, float]) -> None:
    if not 3 <= n <= MAX_COHORT:
        raise ConfigError(
            f"a cohort of {n} cannot be summed privately",
            hint=f"use 3 to {MAX_COHORT} nodes: of two, each could subtract its own input",
        )
    for name, value in fractions.items():
        if not 0 <= value < 0.5:
            raise ConfigError(
                f"{name} {value:g} is out of range",
                hint="use 0 up to, but not including, 0.5: no quorum outlasts half of the nodes",
            )
