"""How many bits of work the lattice problems of the scheme `ckks` ask for, by the usual heuristics.

The primal attack with the geometric series assumption (unique-SVP embedding, and BDD with a last,
larger sieve) and a plain dual attack, as the public lattice-estimator states them, without Sage.
specs/35-ckks-parameters.md says what is made of the figures, and what they leave out.

Sources: Albrecht, Player and Scott 2015 (the estimator; its `primal_usvp`, shape "gsa"); Alkim,
Ducas, Pöppelmann and Schwabe 2016, section 6 (success condition, core-SVP cost, dual); Bai and
Galbraith 2014 (secrets smaller than errors); Chen 2013 (δ of β); Becker, Ducas, Gama and Laarhoven
2016 (sieving); MATZOV 2022 (gates).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.common import BenchError

__all__ = ["COSTS", "GUIDELINES", "STANDARD", "Estimate", "Lwe", "bdd", "bits_of", "dual", "primal"]

STANDARD: Final = {1024: 27, 2048: 54, 4096: 109, 8192: 218}
"""Degree to log2 q of the Homomorphic Encryption Standard (2018): ternary secret, 128 bits."""
GUIDELINES: Final = {1024: 26, 2048: 53, 4096: 106, 8192: 214}
"""The same of the guidelines of 2024 (Bossuat et al.), from every attack of the estimator."""
_BETAS: Final = range(60, 4000)
"""Block sizes for which δ(β) and the costs are meant."""


@dataclass(frozen=True, slots=True)
class Lwe:
    """An LWE problem, as much of it as the heuristics look at."""

    dimension: int
    """Unknown coordinates of the secret."""
    log_q: float
    secret_variance: float
    error_variance: float
    samples: int | None = None
    """Samples at hand; None for as many as one likes."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cheapest attack of a kind: log2 of its cost, its block size and lattice dimension."""

    bits: float
    beta: int
    lattice: int


def core_svp(beta: int, _lattice: int) -> float:
    """Return log2 of one sieve's cost, all factors left out (`ADPS16`)."""
    return 0.292 * beta


def bdgl16(beta: int, lattice: int) -> float:
    """Return log2 of 8d sieves' cost (`BDGL16`, for β > 90): what the 2018 standard counts in."""
    return 0.292 * beta + 16.4 + (math.log2(8 * lattice) if beta < lattice else 0.0)


def matzov(beta: int, lattice: int) -> float:
    """Return log2 of the gates of progressive BKZ (`MATZOV`): today's default of the estimator."""
    slope, constant = 0.29613500308205365, 20.387885985467914
    progressive = -math.log2(1 - 2**-slope)
    free = max(beta * math.log(4 / 3) / math.log(beta / (2 * math.pi * math.e)), 0.0)
    calls = math.log2(max(lattice - beta, 1))
    return 2 * progressive + calls + slope * (beta - free) + constant


COSTS: Final[dict[str, Callable[[int, int], float]]] = {
    "ADPS16": core_svp,
    "BDGL16": bdgl16,
    "MATZOV": matzov,
}


def primal(problem: Lwe, cost: str = "BDGL16") -> Estimate:
    """Return the cheapest embedding: least β, then least dimension, that finds the short vector.

    With ξ = σ_e/σ_s, d = m + n + 1 and δ = δ(β) the condition is
    σ_e √β ≤ δ^(2β − d − 1) · (q^m · ξ^n · σ_e)^(1/d).

    Raises:
        BenchError: the problem is not one, or too easy or too hard for the model (β 60 to 4000).
    """
    problem = _normal_form(problem)
    for beta in _BETAS:
        lattice = _embedding(problem, beta)
        if lattice:
            if beta == _BETAS.start:
                break
            return Estimate(COSTS[cost](beta, lattice), beta, lattice)
    raise BenchError(
        f"the block size leaves {_BETAS.start} to {_BETAS.stop}",
        hint="the model fits neither problems that easy nor that hard",
    )


def bdd(problem: Lwe, cost: str = "BDGL16") -> Estimate:
    """Return the cheapest reduction with a smaller β and, after it, one sieve of dimension η > β.

    η is the least for which σ_e √η is below the Gaussian heuristic of the last η vectors (the
    estimator's `primal_bdd`, shape "gsa").
    """
    embedded = primal(problem, cost)
    problem = _normal_form(problem)
    best = embedded
    for beta in range(max(_BETAS.start, embedded.beta - 60), embedded.beta):
        for scale in range(80, 121, 2):
            lattice = embedded.lattice * scale // 100
            if problem.samples is not None:
                lattice = min(lattice, problem.dimension + problem.samples)
            eta = _last_sieve(problem, beta, lattice)
            if eta:
                bits = _sum_of_logs(COSTS[cost](beta, lattice), COSTS[cost](eta, eta))
                if bits < best.bits:
                    best = Estimate(bits, beta, lattice)
    return best


def dual(problem: Lwe, cost: str = "BDGL16") -> Estimate:
    """Return the cheapest plain dual attack: no guessing, one sieve's 2^(0.2075 β) vectors at once.

    A vector of length ℓ = δ^d (qσ_s/σ_e)^(n/d) tells with advantage 4 exp(−2π²(ℓσ_e/q)²), and as
    many are needed as the inverse of its square (ADPS16, section 6.4).
    """
    problem = _normal_form(problem)
    sigma, n = math.sqrt(problem.error_variance), problem.dimension
    ratio = math.sqrt(problem.secret_variance) / sigma
    ln_q = problem.log_q * math.log(2)
    best = Estimate(math.inf, 0, 0)
    for beta in _BETAS:
        ln_delta = _ln_delta(beta)
        lattice = round(math.sqrt(n * (ln_q + math.log(ratio)) / ln_delta))
        lattice = min(max(lattice, n + 1), n + (problem.samples or lattice))
        ln_length = lattice * ln_delta + n * (ln_q + math.log(ratio)) / lattice
        ln_tau = ln_length + math.log(sigma) - ln_q
        if ln_tau > 5:
            continue
        advantage = min(0.0, 2 - 2 * math.pi**2 * math.exp(2 * ln_tau) / math.log(2))
        bits = COSTS[cost](beta, lattice) + max(0.0, -2 * advantage - 0.2075 * beta)
        if bits < best.bits:
            best = Estimate(bits, beta, lattice)
        elif bits > best.bits + 40:
            break
    return best


def _normal_form(problem: Lwe) -> Lwe:
    """Return the problem with a secret no wider than its errors: n samples buy such a one."""
    if min(problem.secret_variance, problem.error_variance) <= 0 or problem.dimension < 1:
        raise BenchError("nothing is left unknown", hint="use positive variances and dimensions")
    variance = min(problem.secret_variance, problem.error_variance)
    return Lwe(problem.dimension, problem.log_q, variance, problem.error_variance, problem.samples)


def _last_sieve(problem: Lwe, beta: int, lattice: int) -> int:
    """Return the least dimension η of a sieve that ends the attack; 0 if 2β is not enough."""
    n, ln_delta = problem.dimension, _ln_delta(beta)
    ln_error = math.log(problem.error_variance) / 2
    ln_xi = ln_error - math.log(problem.secret_variance) / 2
    ln_volume = (lattice - n) * problem.log_q * math.log(2) + n * ln_xi
    for eta in range(beta, min(2 * beta, lattice)):
        ln_ball = (math.log(math.pi * eta) / eta - math.log(2 * math.pi * math.e)) / 2
        if ln_error <= ln_ball + ln_volume / lattice - ln_delta * (lattice - eta):
            return eta
    return 0


def _sum_of_logs(one: float, two: float) -> float:
    return max(one, two) + math.log2(1 + 2 ** -abs(one - two))


def _ln_delta(beta: int) -> float:
    """Return ln δ, δ the root Hermite factor of BKZ-β (Chen 2013, for β above 50)."""
    return math.log((math.pi * beta) ** (1 / beta) * beta / (2 * math.pi * math.e)) / (
        2 * (beta - 1)
    )


def _embedding(problem: Lwe, beta: int) -> int:
    """Return the least dimension in which BKZ-β finds the short vector; 0 if there is none."""
    n, ln_q, ln_delta = problem.dimension, problem.log_q * math.log(2), _ln_delta(beta)
    ln_error = math.log(problem.error_variance) / 2
    ln_xi = ln_error - math.log(problem.secret_variance) / 2
    most = 2 * math.ceil(math.sqrt(n * ln_q / ln_delta))
    if problem.samples is not None:
        most = min(most, n + problem.samples + 1)
    # ln_delta·(2β − d − 1) + (ln σ + n ln ξ + (d − n − 1) ln q)/d − ln(σ√β) ≥ 0, times d
    a, b = -ln_delta, ln_delta * (2 * beta - 1) + ln_q - ln_error - math.log(beta) / 2
    c = ln_error + n * ln_xi - (n + 1) * ln_q
    disc = b * b - 4 * a * c
    if disc < 0:
        return 0
    least, last = sorted(((-b + math.sqrt(disc)) / (2 * a), (-b - math.sqrt(disc)) / (2 * a)))
    lattice = max(math.ceil(least), n + 1, beta + 1)
    return lattice if lattice <= min(last, most) else 0


def bits_of(problem: Lwe) -> dict[str, tuple[float, ...]]:
    """Return the bits of `primal`, `bdd` and `dual` for each cost model."""
    attacks = primal, bdd, dual
    return {name: tuple(attack(problem, name).bits for attack in attacks) for name in COSTS}


def row(label: str, problem: Lwe) -> str:
    """Return one line of a table: β of the embedding, bits by cost model and attack."""
    figures = "".join(
        " |" + "".join(f"{bits:7.1f}" for bits in found) for found in bits_of(problem).values()
    )
    return f"{label:<20}{primal(problem).beta:5d}{figures}"


def header(label: str) -> str:
    """Return the two lines above such rows."""
    names = "".join(f" | {name:<20}" for name in COSTS)
    return f"{label:<20}    β{names}\n{'':<25}" + " | primal    bdd   dual" * len(COSTS)


def main() -> None:
    """Print the bits of one problem, or those of the published tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--degree", type=int, help="dimension n of the secret")
    parser.add_argument("--log-q", type=float, help="log2 of the modulus")
    parser.add_argument("--secret-variance", type=float, default=2 / 3, help="2/3: ternary")
    parser.add_argument("--error-variance", type=float, default=10.5, help="10.5: SEAL")
    options = parser.parse_args()
    try:
        if options.degree and options.log_q:
            print(header("n, log q"))
            variances = options.secret_variance, options.error_variance
            problem = Lwe(options.degree, options.log_q, *variances)
            print(row(f"{options.degree}, {options.log_q:g}", problem))
            return
        for title, table in (("standard of 2018", STANDARD), ("guidelines of 2024", GUIDELINES)):
            print(header(title))
            for degree, log_q in table.items():
                print(row(f"{degree}, {log_q}", Lwe(degree, log_q, 2 / 3, 3.19**2)))
    except BenchError as error:
        parser.exit(2, f"error: {error}\nhint: {error.hint}\n")


if __name__ == "__main__":
    main()
