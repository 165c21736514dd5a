"""What is left unknown of a node's secret and errors once their sums over two nodes are known.

A round of `ckks` opens Σ w s and, with the sum of inputs, Σ w e. Where all but two nodes collude,
the two others' sums are known to the adversary. Everything is independent from coordinate to
coordinate, so what is left of each follows by enumeration, exactly; how much work that is worth say
then the heuristics of `bench.lattice`, used as Dachman-Soled, Ducas, Gong and Rossi 2020 do for
hints: coordinates scaled to the same deviation, those that are known taken out.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from bench.common import BenchError
from bench.lattice import Lwe, header, row

__all__ = [
    "Left",
    "Pmf",
    "Spread",
    "binomial",
    "given_sum",
    "left_of",
    "lwe_given_sums",
    "ternary_sum",
    "worst_pair",
]

SEAL_HALVES: Final = 21
"""SEAL's error is a centred binomial: 21 coins less 21 coins, variance 10.5, |e| ≤ 21."""
SAMPLES: Final = 1 << 30
"""Samples of one secret among which the adversary may pick: a model of 10^9 values."""

_PICKED: Final = 1 << 12
"""Samples an attack takes: twice the unknowns of degree 2048."""

Pmf = dict[int, Fraction]


@dataclass(frozen=True, slots=True)
class Spread:
    """One value that a known sum may take: how likely, and what variance it leaves."""

    probability: float
    variance: float


@dataclass(frozen=True, slots=True)
class Left:
    """What known sums leave of secret and error.

    Attributes:
        fixed: Fraction of the secret's coordinates that the sum gives away.
        secret_mean: Mean variance left in a coordinate of the secret.
        secret_variance: Square of the geometric mean of deviations left in those not given away.
        error_mean: Mean variance left in an error.
        error_variance: As `secret_variance`, over the samples whose errors the sum narrows most.
        errors_fixed: Fraction of the errors that the sum gives away.
    """

    fixed: float
    secret_mean: float
    secret_variance: float
    error_mean: float
    error_variance: float
    errors_fixed: float


def ternary_sum(terms: int) -> Pmf:
    """Return the distribution of a sum of uniform draws from {−1, 0, 1}."""
    return _convolved(dict.fromkeys((-1, 0, 1), Fraction(1, 3)), terms)


def binomial(terms: int = 1) -> Pmf:
    """Return the distribution of a sum of SEAL's errors."""
    coins = 2 * SEAL_HALVES * terms
    return {k - coins // 2: Fraction(math.comb(coins, k), 1 << coins) for k in range(coins + 1)}


def given_sum(pmf: Pmf, weights: tuple[int, int] = (1, 1)) -> list[Spread]:
    """Return what knowing w₁x₁ + w₂x₂ leaves of x₁, for each value that the sum may take.

    x₁ and x₂ are independent draws. For coprime weights the sum gives x₁ modulo w₂, and
    x₁ = x′ + w₂k; the variance is that of k, since what is left of the LWE sample may be divided
    by w₂, so that both secret and error count in k's.
    """
    one, two = (weight // math.gcd(*weights) for weight in weights)
    moments: dict[int, list[Fraction]] = {}
    for (x, p), (y, q) in ((a, b) for a in pmf.items() for b in pmf.items()):
        sums = moments.setdefault(one * x + two * y, [Fraction(0)] * 3)
        weight = p * q
        sums[0] += weight
        sums[1] += weight * x
        sums[2] += weight * x * x
    return [
        Spread(float(mass), float((square / mass - (mean / mass) ** 2) / two**2))
        for mass, mean, square in moments.values()
    ]


def worst_pair(max_weight: int) -> tuple[int, int]:
    """Return the coprime weights up to `max_weight` that leave least of two honest nodes' secrets.

    What is left has about 1/(w₁² + w₂²) of the variance.
    """
    return (max_weight, max_weight - 1) if max_weight > 1 else (1, 1)


@lru_cache(maxsize=64)
def left_of(terms: int, error_terms: int, weights: tuple[int, int], samples: int = SAMPLES) -> Left:
    """Return what Σ w s and Σ w e over two honest nodes leave of one secret and its errors.

    The adversary picks, of `samples`, the 4096 whose errors the sum narrows most: more than any
    attack on 2048 unknowns takes.
    """
    secrets = given_sum(ternary_sum(terms), weights)
    errors = given_sum(binomial(error_terms), weights)
    unknown = [item for item in secrets if item.variance]
    vague = [item for item in errors if item.variance]
    share = sum(item.probability for item in unknown)
    return Left(
        fixed=max(0.0, 1 - share),
        secret_mean=sum(item.probability * item.variance for item in secrets),
        secret_variance=_geometric(unknown, share),
        error_mean=sum(item.probability * item.variance for item in errors),
        error_variance=_geometric(vague, _PICKED / samples),
        errors_fixed=sum(item.probability for item in errors if not item.variance),
    )


def lwe_given_sums(
    degree: int, log_q: float, terms: int, *, error_terms: int = 1, max_weight: int = 1
) -> Lwe:
    """Return the problem that is left where all but two nodes collude.

    Coordinates of the secret that the sum gives away are no unknowns, and each error that it
    gives away is a linear equation that saves one more.

    Raises:
        BenchError: nothing is left.
    """
    left = left_of(terms, error_terms, worst_pair(max_weight))
    unknown = round(degree * (1 - left.fixed)) - round(left.errors_fixed * SAMPLES)
    if unknown < 1:
        raise BenchError("the sums give the secret away", hint="use more terms, or lower weights")
    return Lwe(unknown, log_q, left.secret_variance, left.error_variance, SAMPLES)


def _geometric(spreads: list[Spread], share: float) -> float:
    """Return exp E[ln variance] over the `share` of the probability with least variance."""
    total, logs = 0.0, 0.0
    for item in sorted(spreads, key=lambda item: item.variance):
        part = min(item.probability, share - total)
        if part <= 0:
            break
        total += part
        logs += part * math.log(item.variance)
    return math.exp(logs / total) if total else 0.0


def _convolved(pmf: Pmf, terms: int) -> Pmf:
    result: Pmf = {0: Fraction(1)}
    for _ in range(terms):
        grown: Pmf = {}
        for (x, p), (y, q) in ((a, b) for a in result.items() for b in pmf.items()):
            grown[x + y] = grown.get(x + y, Fraction(0)) + p * q
        result = grown
    return result


def main() -> None:
    """Print what is left, and the bits, for moduli, numbers of terms and weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--degree", type=int, default=2048)
    parser.add_argument("--log-q", type=float, nargs="+", default=[49, 50, 51, 52, 53])
    parser.add_argument("--terms", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--error-terms", type=int, default=1)
    parser.add_argument("--max-weight", type=int, default=1)
    options = parser.parse_args()
    for terms in options.terms:
        left = left_of(terms, options.error_terms, worst_pair(options.max_weight))
        figures = ", ".join(f"{name} {getattr(left, name):.4g}" for name in Left.__slots__)
        print(f"\n{terms} terms: {figures}")
        print(header("log q"))
        for log_q in options.log_q:
            settings = {"error_terms": options.error_terms, "max_weight": options.max_weight}
            try:
                problem = lwe_given_sums(options.degree, log_q, terms, **settings)
                print(row(f"{log_q:g}", problem))
            except BenchError as error:
                parser.exit(2, f"error: {error}\nhint: {error.hint}\n")


if __name__ == "__main__":
    main()
