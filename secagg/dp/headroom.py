"""How many bits integers and sums need under noise, and where a node's noise is cut.

Every bound but one is certain or fails with a stated probability: a node's integers are cut to a
magnitude before noise, its noise is cut where it nearly never goes, and the noise of a sum is held
against its tail. A sum that wraps is wrong and no less private.

Source: specs/50-dp.md section 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from secagg.dp.rotation import transform_length
from secagg.dp.rounding import sensitivity
from secagg.dp.terms import SKELLAM, NoiseTerms
from secagg.errors import ConfigError

__all__ = [
    "CUT_BITS",
    "WRAP_BITS",
    "greatest_magnitude",
    "greatest_noise",
    "noise_tail",
    "ring_bits",
    "share_variance",
    "sum_bound",
    "value_bits",
]

WRAP_BITS: Final = 40
"""A sum wraps, and a node's rotated vector is cut, in one of 2^40 rounds at most."""
CUT_BITS: Final = 64
"""Noise of one node in one round is cut anywhere with a probability of 2^-64 at most."""
_RING_BITS: Final = range(8, 33)
_VALUE_BITS: Final = range(8, 25)
_LEAST_SCALE: Final = 8  # of NoiseTerms
_DIGITS: Final = 100  # a noise_multiplier in a hint has two decimals


def share_variance(terms: NoiseTerms, dim: int) -> float:
    """Return the variance parameter of one node's share in each coordinate, in steps²."""
    fresh = (terms.noise_multiplier * sensitivity(terms.scale, dim).l2) ** 2 / terms.honest  # D-10
    return fresh * terms.stretch


def greatest_magnitude(terms: NoiseTerms, dim: int) -> int:
    """Return K: what the coordinates of a node's integers are cut to before noise.

    Without rotation it is M, which only float error could exceed. With rotation a coordinate is
    beyond M·√(2 ln(2·dim/β)/P) with probability β/dim at most (Hoeffding: it is a sum with
    independent signs), and rounding adds one step.
    """
    if not terms.rotation:
        return terms.scale
    tail = math.sqrt(2 * _log_odds(WRAP_BITS, dim) / transform_length(dim))
    return min(terms.scale, math.floor(terms.scale * tail) + 1)


def greatest_noise(terms: NoiseTerms, dim: int) -> int:
    """Return T: what the coordinates of a node's noise are cut to.

    Some coordinate of a node and round is cut with a probability of 2^-`CUT_BITS` at most.
    """
    bits = CUT_BITS + math.log2(dim)
    return noise_tail(terms.mechanism, share_variance(terms, dim), bits)


def noise_tail(mechanism: str, variance: float, bits: float) -> int:
    """Return a t that noise of this variance exceeds, |X| > t, with probability 2^-bits at most.

    A discrete Gaussian is sub-Gaussian with its variance parameter, and so is a sum of such with
    the sum of theirs. Skellam noise is not: ln E e^(sX) = v·(cosh s - 1) <= v·s²/(2 - 2s/3) is that
    of a sub-gamma variable, which costs one third of ln(2/p) more (Bernstein).

    Source: Canonne, Kamath and Steinke 2020 section 2; Boucheron, Lugosi and Massart 2013
    section 2.4. specs/50-dp.md section 8 has both proofs.
    """
    log_odds = _log_odds(bits, 1)
    tail = math.sqrt(2 * variance * log_odds)
    return math.ceil(tail + log_odds / 3 if mechanism == SKELLAM else tail)


def sum_bound(terms: NoiseTerms, dim: int, nodes: int) -> int:
    """Return what no coordinate of the noised sum of `nodes` exceeds, but for 2^-`WRAP_BITS`.

    All nodes noise, so the variance is that of as many shares, however many of them are counted on.
    """
    noise = noise_tail(
        terms.mechanism, nodes * share_variance(terms, dim), WRAP_BITS + math.log2(dim)
    )
    return nodes * greatest_magnitude(terms, dim) + noise


def ring_bits(terms: NoiseTerms, dim: int, nodes: int) -> int:
    """Return b, 8 to 32, such that the noised sum of `nodes` does not wrap modulo 2^b.

    Raises:
        ConfigError: no such ring has enough bits; the hint names what would do.
    """
    bits = _ring_bits(terms, dim, nodes)
    if bits not in _RING_BITS:
        raise ConfigError(  # D-11
            f"a noised sum of {nodes} nodes takes {bits} bits, and a ring has "
            f"{_RING_BITS[-1]} at most",
            hint=_ways(terms, lambda other: _ring_bits(other, dim, nodes) in _RING_BITS),
        )
    return bits


def value_bits(terms: NoiseTerms, dim: int) -> int:
    """Return v, 8 to 24, such that a node's noised integers are within ±(2^(v-1) - 1) for certain.

    Raises:
        ConfigError: they need more bits; the hint names what would do.
    """
    bits = _value_bits(terms, dim)
    if bits not in _VALUE_BITS:
        raise ConfigError(  # D-11
            f"a node's noised value takes {bits} bits, and ckks has {_VALUE_BITS[-1]} at most",
            hint=_ways(terms, lambda other: _value_bits(other, dim) in _VALUE_BITS),
        )
    return bits


def _ring_bits(terms: NoiseTerms, dim: int, nodes: int) -> int:
    return max(_RING_BITS[0], sum_bound(terms, dim, nodes).bit_length() + 1)


def _value_bits(terms: NoiseTerms, dim: int) -> int:
    greatest = greatest_magnitude(terms, dim) + greatest_noise(terms, dim)
    return max(_VALUE_BITS[0], greatest.bit_length() + 1)


def _log_odds(bits: float, dim: int) -> float:
    """Return ln(2·dim/p) for p = 2^-bits: two tails, `dim` coordinates."""
    return (bits + 1) * math.log(2) + math.log(dim)


def _ways(terms: NoiseTerms, fits: Callable[[NoiseTerms], bool]) -> str:
    """Return which change of one number would do, that of the noise last: it costs privacy."""
    ways: list[str] = []
    if not terms.rotation and fits(replace(terms, rotation=True)):
        ways.append("set rotation = true")
    scale = _greatest(_LEAST_SCALE, terms.scale, lambda s: fits(replace(terms, scale=s)))
    if scale is not None:
        ways.append(f"use a scale of at most {scale}")
    hundredths = _greatest(
        1,
        min(int(terms.noise_multiplier * _DIGITS), 1 << 40),
        lambda z: fits(replace(terms, noise_multiplier=z / _DIGITS)),
    )
    if hundredths is not None:
        ways.append(f"a noise_multiplier of at most {hundredths / _DIGITS:.2f}, for less privacy")
    return ", or ".join(ways) or "use rotation and a smaller scale together, or fewer nodes"


def _greatest(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """Return the greatest of low … high that fits, None if `low` does not; fits is monotone."""
    if high < low or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
